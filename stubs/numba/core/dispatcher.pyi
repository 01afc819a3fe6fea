from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T", covariant=True)

class _CompileStats(NamedTuple):
    cache_path: str | None
    cache_hits: Mapping[object, int]
    cache_misses: Mapping[object, int]

class Dispatcher(Generic[P, T]):
    py_func: Callable[P, T]
    @property
    def stats(self) -> _CompileStats: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T: ...
