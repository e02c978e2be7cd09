"""Whether it can work here: the probe's answer, and what open says where it cannot."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hardpoint.errors import ConfigError
from hardpoint.interfaces.kinds import Target
from hardpoint.testing.check import check, expect
from hardpoint.testing.every.asking import ask_once
from hardpoint.testing.subject import Subject

_TORCH_DEVICE = re.compile(r"[a-z]+(:\d+)?")
_HERE = "probing it in a fresh process"
_BARE = "probing it with an empty home and PATH, and no visible accelerator"


class ProbingChecks:
    """Unavailable is not broken: a probe says which, and never raises."""

    @check("loads")
    def test_probe_answers(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Shallow and deep, the probe says ready with devices, or unavailable with a reason."""
        found = ask_once(subject, "probe", what=_HERE)
        for depth in ("shallow", "deep"):
            judge(subject, found[depth], f"a {depth} probe")
        figures["available"] = found["deep"]["available"]
        figures["reason"] = found["deep"]["reason"]
        figures["notes"] = found["deep"]["notes"]
        figures["devices"] = [f"{d['id']}: {d['name']}" for d in found["deep"]["devices"]]
        expect(
            found["shallow"]["available"] or not found["deep"]["available"],
            "a shallow probe said unavailable and a deep one ready: the shallow one leaves out "
            "what it must not touch, so it may be the more hopeful one, never the less",
        )

    @check("loads")
    def test_probe_survives_missing_hardware(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """On a machine that lacks everything, the probe still answers, and open does not crash."""
        found = ask_once(subject, "probe", "bare", what=_BARE)
        for depth in ("shallow", "deep"):
            judge(subject, found[depth], f"on a machine that lacks everything, a {depth} probe")
        figures["available"] = found["deep"]["available"]
        figures["reason"] = found["deep"]["reason"]
        expect(
            found["open"]["how"] != "ProviderFailed",
            f"on a machine that lacks everything, open raised something raw: "
            f"{found['open']['words']}",
        )

    @check("loads")
    def test_open_says_that_it_is_unavailable(self, subject: Subject) -> None:
        """Where its probe says unavailable, open raises ProviderUnavailable with the reason."""
        machines = {"here": (), "on a machine that lacks everything": ("bare",)}
        looked = False
        for where, which in machines.items():
            found = ask_once(subject, "probe", *which, what=_BARE if which else _HERE)
            if found["deep"].get("available", True):
                continue
            looked = True
            opened = found["open"]
            asked = f"{where} its probe says unavailable ({found['deep']['reason']})"
            expect(
                opened["how"] == "unavailable",
                f"{asked}, and open {'worked' if opened['how'] == 'works' else 'raised'} "
                f"{opened['words'] or '(it gave an object)'}: raise hardpoint.ProviderUnavailable "
                "with the same reason",
            )
            expect(
                opened["cause"],
                f"{asked}, and open raised ProviderUnavailable without cause or remedy: "
                f"{opened['words']}",
            )
        if not looked:
            pytest.skip("it is available here, and on a machine that lacks everything too")


def judge(subject: Subject, answer: dict[str, Any], asked: str) -> None:
    """Fail the check unless ``answer``, of :mod:`.inside.probe`, is one that a probe may give."""
    hook = f"hardpoint_{subject.kind}_probe"
    expect(
        not answer["raised"],
        f"{asked} raised: a probe never does, since what is missing is its answer "
        f"(Probe.unavailable(reason, remedy=...)); {answer['raised']}",
    )
    if not answer["available"]:
        expect(
            len(answer["reason"].split()) > 1,
            f"{asked} says unavailable, and as the reason {answer['reason']!r}: say in words what "
            "is missing, e.g. 'the driver libacme.so.3 is not installed'",
        )
        return
    devices = answer["devices"]
    if subject.kind != "backend":
        expect(not devices, f"{hook} names devices, which only backends have: {devices}")
        return
    expect(devices, f"{asked} says ready and names no device: Probe.ready(Device(...))")
    ids = [device["id"] for device in devices]
    expect(len({*ids}) == len(ids), f"{asked} names devices with the same id: {ids}")
    for device in devices:
        _judge_device(subject, device, asked)


def _judge_device(subject: Subject, device: dict[str, Any], asked: str) -> None:
    which = f"{asked} names a device {device['id']!r}"
    target = f"{subject.name}:{device['id']}"
    expect(
        _is_target(target),
        f"{which}: {target!r} must be a target, so an id has letters, digits, '.', '_' and '-'",
    )
    expect(str(device["name"]).strip(), f"{which} without a name for people")
    expect(
        isinstance(device["torch_device"], str) and _TORCH_DEVICE.fullmatch(device["torch_device"]),
        f"{which} whose tensors live on {device['torch_device']!r}, which is no device of PyTorch; "
        "'cpu' where it takes its inputs from host memory",
    )
    memory = device["memory"]
    expect(
        memory is None or (type(memory) is int and memory > 0),
        f"{which} with {memory!r} bytes of memory: a positive int, or None where unknown",
    )
    expect(
        isinstance(device["properties"], dict),
        f"{which} whose properties are {device['properties']}",
    )


def _is_target(text: str) -> bool:
    try:
        return str(Target.parse(text)) == text
    except ConfigError:
        return False
