"""What holds for every test: timing decides nothing, so hypothesis's stopwatches are off."""

from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
