"""The part of Dask's distributed that we and our tests use."""

from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Self

from distributed.core import Comm
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.threadpoolexecutor import ThreadPoolExecutor

class KilledWorker(Exception): ...

class _Loop:
    asyncio_loop: AbstractEventLoop

class _Rpc:
    """A remote server: each attribute is an operation, which takes keywords."""

    address: str
    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]: ...

class _Pool:
    def __call__(self, address: str) -> _Rpc: ...
    async def connect(self, address: str) -> Comm: ...
    def reuse(self, address: str, comm: Comm) -> None: ...

class Future:
    key: str
    status: str
    def __await__(self) -> Generator[Any, Any, Any]: ...
    def release(self) -> None: ...
    def result(self, timeout: float | None = ...) -> Any: ...

class Client:
    id: str
    status: str
    loop: _Loop
    scheduler: _Rpc
    rpc: _Pool
    direct_to_workers: bool | None
    futures: dict[str, Any]
    def __init__(
        self, address: str | LocalCluster | None = ..., *, asynchronous: bool = ..., timeout: float = ..., **kw: Any
    ) -> None: ...
    def __await__(self) -> Generator[Any, Any, Client]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def close(self, timeout: float = ...) -> Any: ...
    def submit(
        self,
        f: Callable[..., Any],
        *args: Any,
        key: str | None = ...,
        pure: bool = ...,
        retries: int = ...,
        fifo_timeout: float | str = ...,
        workers: list[str] | None = ...,
        **kw: Any,
    ) -> Future: ...
    def gather(self, futures: list[Future]) -> list[Any]: ...
    def run(self, f: Callable[..., Any], *args: Any, **kw: Any) -> dict[str, Any]: ...
    def run_on_scheduler(self, f: Callable[..., Any], *args: Any, **kw: Any) -> Any: ...
    def restart(self, timeout: float = ..., wait_for_workers: bool = ...) -> None: ...
    def nthreads(self) -> dict[str, int]: ...
    def wait_for_workers(self, n_workers: int, timeout: float = ...) -> None: ...

class _WorkerState:
    address: str
    nthreads: int

class _TaskState:
    processing_on: _WorkerState | None

class Scheduler:
    address: str
    handlers: dict[str, Callable[..., Any]]
    plugins: dict[str, Any]
    tasks: dict[str, _TaskState]
    workers: dict[str, _WorkerState]
    def __init__(self, *, host: str, port: int, dashboard: bool) -> None: ...
    def worker_send(self, worker: str, msg: dict[str, Any]) -> None: ...
    async def proxy(self, msg: dict[str, Any], worker: str) -> Any: ...

class Worker:
    address: str
    executor: ThreadPoolExecutor
    handlers: dict[str, Callable[..., Any]]
    plugins: dict[str, Any]
    scheduler: _Rpc
    def __init__(self, scheduler: str, *, host: str, nthreads: int, dashboard: bool) -> None: ...
    stream_handlers: dict[str, Callable[..., Any]]
    async def plugin_add(self, plugin: WorkerPlugin, name: str) -> Any: ...

class LocalCluster:
    scheduler_address: str
    workers: dict[Any, Any]
    def __init__(
        self,
        n_workers: int = ...,
        threads_per_worker: int = ...,
        processes: bool = ...,
        dashboard_address: str | None = ...,
        **kw: Any,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
    def scale(self, n: int) -> None: ...
    def close(self, timeout: float = ...) -> Any: ...

def get_worker() -> Worker: ...
def worker_client(separate_thread: bool = ...) -> Client: ...
