"""How a connection tells that one side did not trust the other: a network loses connections, TLS refuses them."""

from __future__ import annotations

from twisted.internet.error import ConnectionClosed
from twisted.python.failure import Failure


def distrust(reason: Failure) -> str | None:
    """Why one side did not trust the other, if that is the REASON for which a connection ended; else None."""
    error = reason.value
    if error is None or isinstance(error, ConnectionClosed | OSError):
        return None
    mismatches = getattr(error, "errors", None)  # of service_identity
    if mismatches:
        return f"the server's certificate is not for this host: {', '.join(map(str, mismatches))}"
    queue = error.args[0] if error.args else None  # of OpenSSL: a library, a function and a reason for each error
    if isinstance(queue, list) and queue:
        return f"TLS says {', '.join(str(each[-1]) for each in queue)}"
    return f"TLS says {error}"
