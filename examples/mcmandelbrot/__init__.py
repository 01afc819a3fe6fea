"""The Mandelbrot set, drawn on all cores: an example of a larger program with AsynQueue.

- `fractal` has what is drawn. A `fractal.picture.Picture` is small enough to be sent with every call.
  `fractal.worker.drawRows` draws a `Band` of its rows in another process, with `fractal.kernel` and `fractal.palette`,
  and compresses it. `fractal.rendering.Drawing` makes these calls, and `fractal.png` writes the results to a file, in
  order.
- `explorer` serves the set to browsers.
- `cli` has the command `mcm`: `cli.draw`, `cli.serve`, `cli.worker`. `cli.session` is one run of the reactor.

Importing this package, `cli.main` included, imports neither Twisted nor numba.
"""
