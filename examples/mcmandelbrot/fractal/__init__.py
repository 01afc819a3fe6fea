"""What is drawn, and how: pictures, the kernel, colours, PNG. This package knows neither a terminal nor HTTP."""
