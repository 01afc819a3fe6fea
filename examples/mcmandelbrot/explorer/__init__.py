"""The explorer: the Mandelbrot set in a browser, and a queue at work behind it.

How to think about it: the plane is cut into `tile.Tile`s, at each level twice as fine as before. A browser asks for
those that it shows, one request a tile; each becomes a few calls, of bounded cost, in the series of the
`visitor.Visitor` who asked. When the browser closes the request, what still waits of it never runs. `crew` has the
queue and its workers, `meter` what there is to see of them, `picture` the large image that is streamed as it is
drawn. `door` is what lets requests in, `pages` answers them, and `server` is all of it, listening.

`static` is what runs in the browser: modules of plain JavaScript, a noun each, that ask nobody else for anything.
"""
