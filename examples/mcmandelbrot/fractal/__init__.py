"""What is drawn, and how: pictures, the kernel, colours, PNG. It knows neither a terminal nor HTTP."""
