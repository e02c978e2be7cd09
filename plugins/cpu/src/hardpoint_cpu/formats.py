"""Names of the artifacts' formats; on their own, so that telling them apart imports nothing."""

EAGER = "hardpoint-cpu/eager/1"
INDUCTOR = "hardpoint-cpu/inductor/1"
AOT = "hardpoint-cpu/aot/3"
