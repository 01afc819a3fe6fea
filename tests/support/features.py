"""Tests that are about a feature of the system, and have nothing to say without it."""

from __future__ import annotations

import pytest

from asynqueue.capabilities import has


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test where the system lacks one of the features NAMES, or `ASYNQUEUE_WITHOUT` has taken it away."""
    missing = [name for name in names if not has(name)]
    return pytest.mark.skipif(bool(missing), reason=f"without {', '.join(missing)}")
