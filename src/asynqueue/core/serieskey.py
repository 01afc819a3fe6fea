"""The key of a series: what a queue finds the calls of a series by, as long as they wait.

A series may be any hashable object of a user. Its hash may change while its calls wait, and its ``__eq__`` may raise
anything. So an object that is not plainly constant is wrapped in a `SeriesKey`, which remembers the hash of the
submission. A key equals the object that it wraps.
"""

from __future__ import annotations

from collections.abc import Hashable

from asynqueue.core.text import errorText, mroOf, namespaceOf, valueText

_CONSTANT = frozenset(map(id, (type(None), bool, int, float, str, bytes)))


class SeriesKey:
    """Stands for SERIES, whose hash is NUMBER."""

    __slots__ = ("_number", "series")

    def __init__(self, series: Hashable, number: int) -> None:
        self.series: Hashable = series
        self._number = number

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        if type(other) is SeriesKey:
            if other._number != self._number:
                return False
            other = other.series
        try:
            return self.series is other or bool(self.series == other)
        except BaseException:  # a user's `__eq__` may raise anything
            return False

    def __repr__(self) -> str:
        return valueText(self.series)


def seriesKey(series: Hashable) -> Hashable:
    """Return the key of SERIES, which is SERIES itself if its hash cannot change.

    Raise `TypeError` if it is not hashable.
    """
    if id(type(series)) in _CONSTANT or type(series) is SeriesKey:
        return series
    try:
        number = hash(series)
    except BaseException as error:  # a user's `__hash__` may raise anything
        raise TypeError(f"series must be hashable, got {valueText(series)}: {errorText(error)}") from error
    owner = next((cls for cls in mroOf(series) if "__hash__" in namespaceOf(cls)), object)
    return series if owner is object else SeriesKey(series, number)
