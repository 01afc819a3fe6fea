from typing import Any

class Comm:
    """A connection."""

    def abort(self) -> None: ...

async def send_recv(comm: Comm, *, op: str, **message: Any) -> Any: ...
