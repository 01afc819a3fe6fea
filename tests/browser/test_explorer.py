"""The explorer as somebody has it before them, in a real browser."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import png
import pytest
from playwright.sync_api import Browser, CDPSession, Page, expect

from tests.browser.conftest import Opening, addressIn, mcm
from tests.browser.explorer import Explorer

BUSY = "#re=-0.7475&im=0.1&radius=0.01&limit=50000&palette=ember"
"""A view at the edge of the set that takes the workers a while."""

SEAHORSES = "#re=-0.745&im=0.11&radius=0.01&limit=1000&palette=ocean"


class TestLoading:
    def test_the_whole_set_is_there(self, opening: Opening) -> None:
        explorer = opening()
        explorer.settle()
        assert explorer.page.title() == "The Mandelbrot set, explored"
        assert explorer.pixel(500, 350) == (0, 0, 0)
        assert explorer.pixel(50, 200) not in ((0, 0, 0), (10, 11, 14))
        expect(explorer.page.locator("#status")).to_be_empty()

    def test_the_panel_shows_the_queue_at_work(self, opening: Opening) -> None:
        explorer = opening(BUSY)
        explorer.waitForReading("unfinished", "> 10")
        explorer.waitForReading("rate", "> 0")
        expect(explorer.page.get_by_role("meter")).to_have_count(2)
        explorer.page.wait_for_function("() => document.querySelector('[role=meter]').ariaValueNow > 50")
        explorer.open("#re=2.9&im=2.9&radius=0.001&limit=10&palette=ember")
        explorer.waitForReading("unfinished", "=== 0")
        explorer.waitForReading("drawn", "> 0")

    def test_what_is_coarse_comes_first_then_what_is_nearest_the_centre(self, opening: Opening) -> None:
        explorer = opening(SEAHORSES)
        explorer.settle()
        tiles = [
            tuple(map(int, found)) for found in re.findall(r"tile/(\d+)/(-?\d+)/(-?\d+)", " ".join(explorer.asked))
        ]
        fine = max(level for level, _, _ in tiles)
        levels = [level for level, _, _ in tiles]
        assert levels == sorted(levels)
        assert set(levels) == {fine, fine - 3}
        side = 4 / 2**fine
        distances = [
            abs(complex((column + 0.5) * side + 0.745, (row + 0.5) * side + 0.11))
            for level, column, row in tiles
            if level == fine
        ]
        assert distances == pytest.approx(sorted(distances))

    def test_the_page_never_stands_still_while_it_loads(self, opening: Opening) -> None:
        explorer = opening(BUSY)
        explorer.waitForReading("unfinished", "> 10")
        explorer.page.keyboard.press("ArrowRight")
        before = explorer.page.locator("#place").inner_text()
        explorer.page.keyboard.press("ArrowRight")
        expect(explorer.page.locator("#place")).not_to_have_text(before)
        expect(explorer.page.locator("#set")).to_have_attribute("aria-busy", "true")


class TestMoving:
    def test_drag(self, opening: Opening) -> None:
        explorer = opening()
        before = explorer.shown()
        drag(explorer.page, (500, 350), (300, 400))
        after = explorer.shown(before)
        step = 2 * before.radius / 700
        assert after.re == pytest.approx(before.re + 200 * step)
        assert after.im == pytest.approx(before.im + 50 * step)
        assert after.radius == before.radius

    def test_the_wheel_zooms_about_the_pointer(self, opening: Opening) -> None:
        explorer = opening()
        before = explorer.shown()
        explorer.page.mouse.move(200, 100)
        explorer.page.mouse.wheel(0, -300)
        after = explorer.shown(before)
        assert after.radius < before.radius
        for shown in (before, after):
            step = 2 * shown.radius / 700
            point = complex(shown.re - 300 * step, shown.im + 250 * step)
            assert point == pytest.approx(complex(before.re - 300 * before.radius / 350, before.radius * 250 / 350))
        explorer.page.mouse.wheel(0, 300)
        assert explorer.shown(after).radius == pytest.approx(before.radius)

    def test_double_click_zooms_in_and_with_shift_out(self, opening: Opening) -> None:
        explorer = opening()
        before = explorer.shown()
        explorer.page.mouse.dblclick(700, 500)
        after = explorer.shown(before)
        assert after.radius == pytest.approx(before.radius / 2)
        assert after.re == pytest.approx(before.re + 100 * 2 * before.radius / 700)
        explorer.page.keyboard.down("Shift")
        explorer.page.mouse.dblclick(700, 500)
        explorer.page.keyboard.up("Shift")
        assert explorer.shown(after).radius == pytest.approx(before.radius)

    def test_the_buttons(self, opening: Opening) -> None:
        explorer = opening()
        before = explorer.shown()
        explorer.page.get_by_role("button", name="Zoom in").click()
        closer = explorer.shown(before)
        assert closer.radius == pytest.approx(before.radius / 2)
        explorer.page.get_by_role("button", name="Zoom out").click()
        assert explorer.shown(closer).radius == pytest.approx(before.radius)
        explorer.open(SEAHORSES)
        explorer.page.get_by_role("button", name="Whole set").click()
        explorer.page.wait_for_url(re.compile("radius=1.25"))

    def test_the_keyboard_alone_will_do(self, opening: Opening) -> None:
        explorer = opening("#re=-1.2&im=0&radius=0.1&limit=auto&palette=ember")
        keyboard = explorer.page.keyboard
        views = [explorer.shown()]
        for key in ("ArrowRight", "ArrowUp", "Shift+ArrowLeft", "ArrowDown", "+", "-", "=", "p", "]"):
            keyboard.press(key)
            views.append(explorer.shown(views[-1]))
        step = 2 * views[0].radius / 700
        assert views[1].re == pytest.approx(views[0].re + 200 * step)
        assert views[2].im == pytest.approx(140 * step)
        assert views[3].re == pytest.approx(views[1].re - 1000 * step)
        assert views[4].im == pytest.approx(0, abs=step)
        assert views[5].radius == pytest.approx(views[0].radius / 2)
        assert views[7].radius == pytest.approx(views[0].radius / 2)
        assert (views[8].palette, views[9].limit) == ("ocean", "250")
        keyboard.press("0")
        assert explorer.shown(views[-1]).re == -0.65
        focused = []
        for _ in range(8):
            keyboard.press("Tab")
            focused.append(explorer.page.evaluate("() => document.activeElement.id || document.activeElement.tagName"))
        assert focused == ["SUMMARY", "out", "in", "home", "palette", "limit", "width", "save"]
        explorer.page.locator("#palette").focus()
        before = explorer.shown()
        keyboard.press("ArrowDown")
        assert explorer.shown(before).re == before.re

    def test_what_a_screen_reader_has_to_tell(self, opening: Opening) -> None:
        explorer = opening()
        explorer.settle()
        expect(
            explorer.page.get_by_role("application", name="The Mandelbrot set, −0.65 + 0.00 i, 2.50 across")
        ).to_be_visible()
        for name in ("Palette", "Iterations", "Width of the image"):
            expect(explorer.page.get_by_label(name)).to_be_visible()
        expect(explorer.page.get_by_role("meter", name="worker 1")).to_be_visible()
        explorer.page.keyboard.press("p")
        expect(explorer.page.get_by_role("status")).to_have_text("palette ocean")


class TestCancelling:
    def test_what_is_moved_away_from_is_cancelled_and_counted(self, opening: Opening) -> None:
        explorer = opening(BUSY)
        explorer.waitForReading("unfinished", "> 10")
        explorer.page.keyboard.press("Shift+ArrowRight")
        explorer.waitForReading("cancelled", "> 0")

    def test_ten_screens_cost_little_more_than_what_was_seen(self, opening: Opening) -> None:
        explorer = opening("#re=-1.2&im=0.3&radius=0.02&limit=5000&palette=ember")
        explorer.settle()
        for _ in range(10):
            explorer.page.keyboard.press("Shift+ArrowLeft")
        explorer.settle()
        loaded, cancelled = explorer.count("loaded"), explorer.count("cancelled")
        explorer.waitForReading("drawn", f">= {loaded}")
        assert explorer.reading("drawn") - loaded <= cancelled  # those that were done when they were cancelled
        screen = 6 * 4 + 2
        assert loaded < 11 * screen / 2


class TestThePermalink:
    def test_whoever_opens_it_sees_the_same(self, opening: Opening) -> None:
        one = opening()
        before = one.shown()
        one.page.mouse.move(620, 300)
        one.page.mouse.wheel(0, -300)
        one.page.get_by_label("Palette").select_option("moss")
        one.page.get_by_label("Iterations").select_option("2000")
        one.page.wait_for_url(re.compile("limit=2000&palette=moss"))
        shown = one.shown(before)
        other = opening(one.page.url.removeprefix(one.address))
        assert other.shown() == shown
        assert other.page.get_by_label("Iterations").input_value() == "2000"
        assert other.page.get_by_label("Palette").input_value() == "moss"
        hide(one, other)
        assert one.page.screenshot() == other.page.screenshot()

    def test_an_address_that_is_edited_is_followed(self, opening: Opening) -> None:
        explorer = opening()
        before = explorer.shown()
        explorer.open(SEAHORSES)
        assert explorer.shown(before).re == -0.745

    @pytest.mark.parametrize(
        "view", ["#re=NaN&im=0&radius=1", "#re=0&im=0&radius=-1", "#x", "#re=0&im=0&radius=1&limit=9e9"]
    )
    def test_nonsense_is_said_to_be(self, opening: Opening, view: str) -> None:
        explorer = opening(view)
        expect(explorer.page.get_by_role("status")).to_contain_text("makes no sense in parts")
        explorer.settle()

    def test_too_deep_is_said_to_be_rather_than_shown_as_noise(self, opening: Opening) -> None:
        explorer = opening("#re=-0.75&im=0.1&radius=1e-30&limit=1000&palette=ember")
        expect(explorer.page.get_by_role("status")).to_contain_text("as deep as double precision goes")
        assert explorer.shown().radius == pytest.approx(700 * 2**-51)
        explorer.page.wait_for_function("() => !document.getElementById('status').textContent")
        explorer.page.keyboard.press("+")
        expect(explorer.page.get_by_role("status")).to_contain_text("as deep as double precision goes")


class TestSaving:
    def test_the_view_is_saved_as_a_large_png(self, opening: Opening, tmp_path: Path) -> None:
        explorer = opening(SEAHORSES)
        explorer.settle()
        with explorer.page.expect_download() as download:
            explorer.page.get_by_role("link", name="Save as PNG").click()
        assert download.value.suggested_filename == "mandelbrot.png"
        download.value.save_as(tmp_path / "m.png")
        width, height, rows, _ = png.Reader(bytes=(tmp_path / "m.png").read_bytes()).read()
        assert (width, height) == (2048, 1434)
        saved = [bytes(row) for row in rows]
        row, column = 717 + 100, 1024 - 300
        there = saved[row][3 * column : 3 * column + 3]
        here = explorer.pixel(round(column * 1000 / 2048), round(row * 700 / 1434))
        assert max(abs(one - other) for one, other in zip(there, here, strict=True)) < 80

    def test_the_key_and_the_width_do_what_they_say(self, opening: Opening, tmp_path: Path) -> None:
        explorer = opening("#re=-0.5&im=0&radius=1.5&limit=100&palette=ash")
        explorer.page.get_by_label("Width of the image").select_option("4096")
        explorer.page.locator("#set").focus()
        with explorer.page.expect_download() as download:
            explorer.page.keyboard.press("s")
        download.value.save_as(tmp_path / "m.png")
        assert png.Reader(bytes=(tmp_path / "m.png").read_bytes()).read()[:2] == (4096, 2867)

    def test_a_refusal_is_told_in_the_page(self, opening: Opening) -> None:
        explorer = opening("#re=-0.7475&im=0.1&radius=0.01&limit=10000&palette=ember")
        explorer.page.get_by_label("Width of the image").select_option("8192")
        save = explorer.page.get_by_role("link", name="Save as PNG")
        with explorer.page.expect_download() as download:
            save.click()
        save.click()
        expect(explorer.page.get_by_role("status")).to_have_text(
            "This cannot be saved now: another image is being drawn: wait for its end"
        )
        download.value.cancel()
        explorer.errors.clear()  # the browser tells of the 429 in its console


class TestAPhone:
    def test_everything_fits(self, opening: Opening) -> None:
        explorer = opening(width=390, height=844, phone=True)
        explorer.settle()
        assert explorer.page.evaluate("() => document.getElementById('set').width") == 780
        assert explorer.page.evaluate("() => document.scrollingElement.scrollWidth") <= 390
        assert explorer.page.locator("#panel").get_attribute("open") is None
        for element in explorer.page.locator("#controls :is(button, select, a)").all():
            box = element.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
            assert box["y"] + box["height"] <= 844
            assert box["height"] >= 40
        explorer.page.locator("#panel summary").click()
        expect(explorer.page.get_by_role("meter")).to_have_count(2)

    @pytest.mark.parametrize(("width", "height"), [(844, 390), (667, 375), (568, 320)])
    def test_on_its_side_it_has_one_row_of_controls_and_little_covers_the_set(
        self, opening: Opening, width: int, height: int
    ) -> None:
        explorer = opening(width=width, height=height, phone=True)
        explorer.settle()
        assert explorer.page.locator("#panel").get_attribute("open") is None
        covered, lines = 0.0, set()
        for element in explorer.page.locator("#controls :is(button, select, a), #place, #panel").all():
            box = element.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] + box["height"] <= height
            covered += box["width"] * box["height"]
            lines.add(round(box["y"]))
        assert len(lines) == 2
        assert covered < 0.2 * width * height
        expect(explorer.page.get_by_role("link", name="Save as PNG")).to_be_visible()

    def test_fingers_drag_pinch_and_tap(self, opening: Opening) -> None:
        explorer = opening(width=390, height=844, phone=True)
        before = explorer.shown()
        fingers = Fingers(explorer.page)
        fingers.play([(200, 400)], [(150, 400)])
        moved = explorer.shown(before)
        assert moved.re == pytest.approx(before.re + 50 * 2 * before.radius / 390)
        fingers.play([(150, 400), (250, 400)], [(100, 400), (300, 400)])
        pinched = explorer.shown(moved)
        assert pinched.radius == pytest.approx(moved.radius / 2)
        fingers.play([(200, 300)])
        fingers.play([(200, 300)])
        assert explorer.shown(pinched).radius == pytest.approx(pinched.radius / 2)

    def test_a_window_that_becomes_a_phone_shows_the_same_place(self, opening: Opening) -> None:
        explorer = opening(SEAHORSES)
        before = explorer.shown()
        explorer.page.set_viewport_size({"width": 390, "height": 700})
        explorer.page.wait_for_function("() => document.getElementById('set').width === 390")
        after = explorer.shown()
        assert (after.re, after.im, after.radius) == (before.re, before.im, before.radius)


class TestTrouble:
    def test_a_server_that_does_not_answer_is_asked_again(self, opening: Opening) -> None:
        explorer = opening()
        explorer.settle()
        explorer.page.route("**/tile/**", lambda route: route.fulfill(status=503, body="the server has too much to do"))
        explorer.page.keyboard.press("+")
        expect(explorer.page.get_by_role("status")).to_contain_text("trying again. (the server has too much to do)")
        explorer.page.unroute("**/tile/**")
        explorer.settle()
        explorer.errors.clear()  # the browser tells of each 503 in its console

    def test_a_browser_that_cannot_read_tiles_is_told_so_and_asks_for_none(self, opening: Opening) -> None:
        for script in (
            "delete globalThis.DecompressionStream",
            "globalThis.DecompressionStream = class { constructor() { throw new TypeError('no such format'); } }",
        ):
            explorer = opening()
            explorer.settle()
            explorer.page.add_init_script(script)
            explorer.asked.clear()
            explorer.page.reload()
            expect(explorer.page.get_by_role("status")).to_contain_text("This browser is too old for the explorer")
            expect(explorer.page.locator("#set")).to_have_attribute("aria-busy", "false")
            assert not [url for url in explorer.asked if "/tile/" in url or "/events" in url]

    def test_a_machine_that_is_lost_is_shown_as_disconnected(self, browser: Browser, tmp_path: Path) -> None:
        key = tmp_path / "wire.key"
        key.write_text("what the machines have")
        key.chmod(0o600)
        places = [f"unix:{tmp_path / name}" for name in ("one", "two")]
        with ExitStack() as stack:
            lending = ["worker", "-w", "1", "-k", str(key)]
            (_, lost), _ = [stack.enter_context(mcm(*lending, place, scratch=tmp_path)) for place in places]
            serving = ["serve", "--port", "0", "-k", str(key), "-d", places[0], "-d", places[1]]
            said, _ = stack.enter_context(mcm(*serving))
            context = stack.enter_context(browser.new_context(viewport={"width": 1000, "height": 700}))
            explorer = Explorer(context.new_page(), addressIn(said))
            explorer.open(SEAHORSES)
            workers = explorer.page.locator("#workers li")
            expect(workers).to_have_count(2)
            lost.kill()
            expect(workers.first).to_have_text("disconnected")
            expect(explorer.page.get_by_role("meter", name="machine 1")).to_have_attribute(
                "aria-valuetext", "disconnected"
            )
            explorer.settle()
            explorer.page.keyboard.press("+")
            explorer.settle()
            expect(workers.last).to_contain_text("%")
            assert not explorer.errors

    def test_two_visitors_are_told_apart(self, opening: Opening) -> None:
        one, other = opening(BUSY), opening()
        other.settle()
        other.waitForReading("visitors", "> 1")
        one.waitForReading("unfinished", "> 0")
        assert "here" in other.page.locator("#drawn").inner_text()


def drag(page: Page, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Press at START, let go at END."""
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=5)
    page.mouse.up()


def hide(*explorers: Explorer) -> None:
    """Leave only the set to be seen."""
    for explorer in explorers:
        explorer.page.evaluate(
            "() => document.querySelectorAll('.card').forEach((card) => (card.style.display = 'none'))"
        )
        explorer.settle()


class Fingers:
    """Touches PAGE."""

    def __init__(self, page: Page) -> None:
        self._session: CDPSession = page.context.new_cdp_session(page)

    def play(self, *places: list[tuple[int, int]]) -> None:
        """Put fingers down at the first of PLACES, move them to each of the others, and lift them."""
        self._send("touchStart", places[0])
        for place in places[1:]:
            self._send("touchMove", place)
        self._send("touchEnd", [])

    def _send(self, kind: str, place: list[tuple[int, int]]) -> None:
        points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(place)]
        self._session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
