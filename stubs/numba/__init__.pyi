"""The part of numba that mcmandelbrot uses: compiling for one signature, at once."""

from collections.abc import Callable
from typing import Literal, ParamSpec, TypeVar

from numba.core.dispatcher import Dispatcher

P = ParamSpec("P")
T = TypeVar("T")

def njit(
    signature: str, *, cache: bool = False, nogil: bool = False, error_model: Literal["python", "numpy"] = "python"
) -> Callable[[Callable[P, T]], Dispatcher[P, T]]: ...
