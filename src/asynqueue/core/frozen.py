"""Records made several times for each call, as cheap as a record can be.

`record` is `attrs.frozen` to a type checker, which so holds everybody to leaving such a record as it was made. At run
time it is a class with slots and a plain ``__init__``: attrs' way of refusing to assign to a frozen record makes it
three times as expensive to make, and nobody's code is wrong only at run time.
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
