"""How many stories real workers are told, where a thread, a process or a connection takes its time over each.

The core has as many examples as the profile says, `deep` thousands of them. `REAL` says how many there are where
something real is at work; a test whose stories take long asks for a part of that.
"""

from __future__ import annotations

from hypothesis import settings

REAL = {"brief": 30, "default": 100, "deep": 500}
"""By profile, the stories that a real worker is told."""


def stories(part: int = 1, least: int = 1) -> int:
    """The PARTth part of what the profile has for real workers, and LEAST at least."""
    profile = settings.get_current_profile_name()
    return max(least, REAL.get(profile, settings.get_profile(profile).max_examples) // part)
