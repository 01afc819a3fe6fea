"""
What every test shares: how hard Hypothesis tries.

The environment variable `HYPOTHESIS_PROFILE` chooses. `default` draws the same examples each time, so
that a run answers for the code and not for its luck; `deep` draws many times more and new ones each time,
and is what `tox -e properties` runs. Neither measures time: a busy machine is no falsifying example.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "deep",
    deadline=None,
    max_examples=2000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
