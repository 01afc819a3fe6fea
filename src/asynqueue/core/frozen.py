"""A cheap decorator for records that are made several times per call.

For a type checker, `record` is `attrs.frozen`, so it rejects every change of a record. At run time the class has slots
and a plain ``__init__``, because the ``__init__`` of a frozen attrs class takes three times as long.

`records` does not define it, because it could export the name only with an `__all__` of all its names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attrs import frozen as record
else:
    from functools import partial

    from attrs import define

    record = partial(define, unsafe_hash=True)

__all__ = ["record"]
