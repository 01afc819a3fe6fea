"""A page that shows the explorer, and what there is to see in it."""

from __future__ import annotations

from typing import cast
from urllib.parse import parse_qs, urlsplit

from attrs import frozen
from playwright.sync_api import Page, expect

PATIENCE = 60_000
"""Milliseconds after which a test that waits in vain fails."""

expect.set_options(timeout=PATIENCE)


@frozen
class Shown:
    """What the address bar says is shown."""

    re: float
    im: float
    radius: float
    limit: str
    palette: str


class Explorer:
    """The explorer at ADDRESS, in PAGE.

    ERRORS is what was wrong in it, and ASKED every URL that it asked for.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        self.asked: list[str] = []
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, view: str) -> None:
        """Open it with VIEW in its address."""
        self.page.goto(f"{self.address}{view}")

    def settle(self) -> None:
        """Wait until all that is shown is there, and drawn."""
        self.page.wait_for_selector("#set[aria-busy=false]")
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def shown(self, different: Shown | None = None) -> Shown:
        """What is shown, once it is there; if it has to be DIFFERENT from something, then once it is."""
        while True:
            self.settle()
            said = self._said()
            if said is not None and said != different:
                return said
            before = self.page.url
            self.page.wait_for_function("before => location.href !== before", arg=before)

    def _said(self) -> Shown | None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).fragment).items()}
        if len(query) < 5:
            return None
        re, im, radius = (float(query[name]) for name in ("re", "im", "radius"))
        return Shown(re, im, radius, query["limit"], query["palette"])

    def reading(self, name: str) -> int:
        """The number that the panel has under NAME; what is for this page alone, if it tells that apart."""
        text = self.page.locator(f"#{name}").inner_text()
        number = text.split(", ")[-1].removesuffix(" here")
        return int(number.replace(",", "")) if number != "–" else 0

    def waitForReading(self, name: str, condition: str) -> None:
        """Wait until the number in the panel under NAME fulfils CONDITION, as ``> 0``."""
        self.page.wait_for_function(
            f"""() => {{
                const text = document.getElementById("{name}").textContent.split(", ").at(-1).replaceAll(",", "");
                return Number.parseInt(text) {condition};
            }}"""
        )

    def pixel(self, x: int, y: int) -> tuple[int, int, int]:
        """The colour at a place of the window."""
        script = """([x, y]) => {
            const canvas = document.getElementById("set");
            const density = canvas.width / innerWidth;
            return [...canvas.getContext("2d").getImageData(x * density, y * density, 1, 1).data].slice(0, 3);
        }"""
        red, green, blue = cast(list[int], self.page.evaluate(script, [x, y]))
        return red, green, blue

    def count(self, name: str) -> int:
        """How many tiles the page has ``loaded`` or ``cancelled``, as of when it settled."""
        return int(self.page.locator("#set").get_attribute(f"data-{name}") or 0)
