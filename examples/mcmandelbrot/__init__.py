"""The Mandelbrot set, drawn band by band over all cores: what AsynQueue is like in a program of some size.

How to think about it: a `picture.Picture` says what to draw and is small enough to travel with every call.
`worker.drawRows` turns a `picture.Band` of its rows into their pixels, in another process, with `kernel` (which
knows the set) and `colour` (which knows the map), and compresses them, as a piece of a stream (`deflate`).
`drawing.Drawing` keeps a `ProcessQueue` busy with such calls and gives the pieces, in order, to
`writer.writePicture`. `session` is one run of the reactor around all this;
`draw` is the command for it, `serve` the one for the `explorer`, in a browser, and `main` the command line, which
finds the command that is meant.

Importing this package, `main` included, imports neither Twisted nor numba.
"""
