from typing import ClassVar, TextIO

class tqdm:
    monitor_interval: ClassVar[float]
    def __init__(
        self,
        *,
        total: int | None = ...,
        disable: bool | None = ...,
        unit: str = ...,
        leave: bool | None = ...,
        dynamic_ncols: bool = ...,
    ) -> None: ...
    def update(self, n: float | None = ...) -> bool | None: ...
    def set_description(self, desc: str | None = ..., refresh: bool = ...) -> None: ...
    @classmethod
    def write(cls, s: str, file: TextIO | None = ..., end: str = ..., nolock: bool = ...) -> None: ...
    def close(self) -> None: ...
