from concurrent import futures
from threading import Lock, Thread, local

class ThreadPoolExecutor(futures.ThreadPoolExecutor):
    _threads: set[Thread]
    def _adjust_thread_count(self) -> None: ...

thread_state: local
threads_lock: Lock
