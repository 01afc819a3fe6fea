"""Pictures, the kernel, colours and PNG. This package knows neither a terminal nor HTTP."""
