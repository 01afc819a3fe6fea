"""Parse requests for a tile or an image, and check every value. Errors are `PictureError`."""

from __future__ import annotations

from re import fullmatch

from twisted.web.server import Request

from mcmandelbrot.errors import PictureError
from mcmandelbrot.explorer import tile as tiles
from mcmandelbrot.explorer.tile import Tile
from mcmandelbrot.explorer.visitor import RINGS
from mcmandelbrot.fractal.picture import MAX_COORDINATE, PALETTES, Picture, View

MAX_PICTURE = 16_384
"""The maximum width and height of an image, in pixels."""

NUMBER = 60
"""The maximum length of a number, in characters."""


def tileOf(request: Request) -> tuple[Tile, int]:
    """Return the tile that REQUEST asks for, and the ring of its view in which it is, from the centre."""
    path = [part.decode("latin-1") for part in request.postpath or ()]
    if len(path) != 3:
        raise PictureError("a tile is /tile/LEVEL/COLUMN/ROW")
    numbers = [_integer(name, text) for name, text in zip(("LEVEL", "COLUMN", "ROW"), path, strict=True)]
    ring = _integer("ring", _argument(request, "ring", "0"))
    if not 0 <= ring < RINGS:
        raise PictureError(f"ring must be from 0 to {RINGS - 1}, got {ring}")
    level, column, row = numbers
    return Tile(level, column, row, _integer("limit", _argument(request, "limit"))), ring


def pictureOf(request: Request) -> Picture:
    """Return the image that REQUEST asks for."""
    extent = [_number(name, _argument(request, name)) for name in ("re", "im", "across", "down")]
    re, im, across, down = extent
    width, limit = (_integer(name, _argument(request, name)) for name in ("width", "limit"))
    if not 1 <= width <= MAX_PICTURE:
        raise PictureError(f"width must be from 1 to {MAX_PICTURE:,} pixels, got {width}")
    if not tiles.MIN_LIMIT <= limit <= tiles.MAX_LIMIT:
        raise PictureError(f"limit must be from {tiles.MIN_LIMIT} to {tiles.MAX_LIMIT:,} iterations, got {limit}")
    if not all(abs(value) <= MAX_COORDINATE for value in extent):
        raise PictureError(f"re, im, across and down must be numbers within ±{MAX_COORDINATE:,.0f}")
    if not (across > 0 and down > 0):
        raise PictureError("across and down must be more than 0")
    if down / MAX_PICTURE > across / width:
        raise PictureError(f"the image would be more than {MAX_PICTURE:,} pixels high")
    view = View.around(width, re, im, across / 2, down / 2)
    return Picture(view, limit, palette=_argument(request, "palette", PALETTES[0]))


def _argument(request: Request, name: str, default: str | None = None) -> str:
    values: list[bytes] = request.args.get(name.encode(), [])
    if len(values) == 1:
        return values[0].decode("utf-8", "replace")
    if values or default is None:
        raise PictureError(f"{name} must be given, once")
    return default


def _integer(name: str, text: str) -> int:
    if fullmatch(r"-?[0-9]{1,18}", text) is None:
        raise PictureError(f"{name} must be an integer, got {text[:30]!r}")
    return int(text)


def _number(name: str, text: str) -> float:
    if len(text) > NUMBER or fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) is None:
        raise PictureError(f"{name} must be a number, got {text[:30]!r}")
    return float(text)
