"""The explorer: the Mandelbrot set in a browser, drawn by a queue.

The plane is divided into tiles (`tile.Tile`), at each level twice as fine as before. A browser requests the tiles that
it shows, one request each. A tile becomes a few calls of limited cost, in the series of the `visitor.Visitor`. When the
browser closes the request, its waiting calls are cancelled.

- `server` is the whole, and listens.
- `site` accepts connections and rejects unwanted requests; `connectionlimits` limits their number.
- `pages` answers requests, which `query` parses.
- `tilequeue` has the queue and its workers.
- `statusstream` sends the state of the queue. `imagestream` sends a large image while it is drawn. Both write to a
  `responsestream`.
- `static` runs in the browser: modules of plain JavaScript, which load nothing from other servers.
"""
