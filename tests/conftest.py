"""What holds for every test: none fails because the machine that runs it is slow."""

from hypothesis import HealthCheck, settings

# By itself hypothesis gives each example 0.2 s, and each test a second to think of its first ones.
settings.register_profile("gw", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gw")
