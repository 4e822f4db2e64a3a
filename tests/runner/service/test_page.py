"""The page in a real browser: a picture from a prompt, a mix by sliders, an inpainting by mouse and by keyboard.

tests/programs/page_check.py judges names, contrasts and the Tab key; tests/programs/page_shots.py takes the README's picture.
"""

import base64
import io

import numpy as np
import page_check
import pytest
from PIL import Image
from served import served, wait

pytestmark = pytest.mark.skipif(page_check.CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
SECONDS = 60_000  # ms


@pytest.fixture(scope="module")
def server(bundles):
    with served(bundles("narrow")) as found:
        yield found


@pytest.fixture(scope="module")
def family(bundles):
    """A server that can repaint."""
    with served(bundles("family")) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with page_check.browser() as found:
        yield found


def until(page, expression):
    """Wait for it from outside: the page's own policy forbids to evaluate text inside."""
    return wait(lambda: page.evaluate(expression))


@pytest.fixture
def opened(browser):
    """A function that opens a server's page, connected. No fault on its console, nothing asked of another host."""
    look, visits = page_check.Look(), []

    def open_page(server, **options):
        visit = page_check.visit(browser, server.url, look, "test", **{"viewport": page_check.WIDE, **options})
        page = visit.__enter__()
        visits.append(visit)
        page.set_default_timeout(SECONDS)
        page_check.ready(page)
        page.fill("#steps", "4")
        return page

    yield open_page
    for visit in visits:
        visit.__exit__(None, None, None)
    assert not look.faults, dict(look.faults)


def pictures(page, count):
    until(page, f"document.querySelectorAll('#gallery li').length === {count}")


def newest(page):
    """The newest picture of the gallery."""
    return Image.open(io.BytesIO(base64.b64decode(page.evaluate("document.querySelector('#gallery img').src").partition(",")[2])))


def test_a_picture_from_a_prompt(opened, server):
    page = opened(server)
    page.fill("#prompt", "a cat")
    page.fill("#negative", "a dog")
    page.fill("#seed", "7")
    page.click("#draw")
    pictures(page, 1)
    text = page.text_content("#gallery li p")
    assert text == "a cat · away from a dog · seed 7 · 4 steps · 16x16"
    assert page.evaluate("document.querySelector('#gallery img').naturalWidth") == 16
    with page.expect_download() as download:
        page.click("#gallery a")
    assert download.value.suggested_filename == "picture-7.png" and Image.open(download.value.path()).size == (16, 16)
    page.fill("#prompt", "other")
    page.click("#gallery button")
    pictures(page, 2)
    assert page.input_value("#prompt") == "a cat"
    sources = page.evaluate("[...document.querySelectorAll('#gallery img')].map(image => image.src)")
    assert sources[0] == sources[1], "the same settings make the same picture"


@pytest.mark.slow
def test_a_mix_by_sliders(opened, server, tmp_path):
    """A change of a weight draws anew from the same seed, and the prior is not run again."""
    page = opened(server)
    Image.new("RGB", (24, 24), "red").save(tmp_path / "red.png")
    page.check("input[value=mix]")
    page.click("#addtext")
    page.keyboard.type("a cat")
    page.set_input_files("#addimage", tmp_path / "red.png")
    page.wait_for_selector("#items img")
    page.click("#draw")
    pictures(page, 1)
    hits = server.service.worker.prior.hits
    page.focus("#items li:first-child input[type=range]")
    page.keyboard.press("ArrowRight")
    pictures(page, 2)
    assert server.service.worker.prior.hits == hits + 1
    first, second = page.evaluate("[...document.querySelectorAll('#gallery p')].map(text => text.textContent)")
    assert first.startswith("0.55 x a cat, 0.50 x a picture") and second.startswith("0.50 x a cat, 0.50 x a picture")
    assert first.split(" · ")[1:] == second.split(" · ")[1:], "the seed stays"


@pytest.mark.slow
def test_a_mix_is_live_while_a_slider_is_dragged(opened, server):
    page = opened(server)
    page.check("input[value=mix]")
    for text in ("a cat", "a dog"):
        page.click("#addtext")
        page.keyboard.type(text)
    page.click("#draw")
    pictures(page, 1)
    box = page.locator("#items li:first-child input[type=range]").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2, steps=5)
    pictures(page, 2)  # the button of the mouse is still down
    page.mouse.up()


def stroke(page, *places):
    """Draw on the canvas by mouse, from place to place, each (x, y) from 0 to 1."""
    box = page.locator("#canvas").bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*at[0])
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def on_canvas(page, x, y):
    """[red, green, blue, tones] of what the canvas shows there, x and y from 0 to 1: the mean of a few pixels around, and in how
    many of the two tones, dark and light, these are. The mouse is taken away before."""
    page.mouse.move(0, 0)
    return page.evaluate(f"""() => {{
      const canvas = document.getElementById('canvas'), side = Math.round(canvas.width / 10), copy = document.createElement('canvas');
      Object.assign(copy, {{width: side, height: side}});
      const context = copy.getContext('2d', {{willReadFrequently: true}});
      context.drawImage(canvas, {x} * canvas.width - side / 2, {y} * canvas.height - side / 2, side, side, 0, 0, side, side);
      const {{data}} = context.getImageData(0, 0, side, side);
      const sums = [0, 0, 0], tones = new Set();
      for (let i = 0; i < data.length; i += 4) {{ for (let c = 0; c < 3; c++) sums[c] += data[i + c]; tones.add(data[i] >> 7); }}
      return [...sums.map(sum => sum / (data.length / 4)), tones.size];
    }}""")


@pytest.mark.slow
def test_an_inpainting_by_mouse(opened, family, tmp_path):
    """What is marked is drawn anew, every other pixel stays; undo, eraser, and the settings put back."""
    given = np.zeros((16, 24, 3), np.uint8)
    given[:, :, 2] = 200
    Image.fromarray(given).save(tmp_path / "blue.png")
    page = opened(family)
    page.check("input[value=edit]")
    page.set_input_files("#open", tmp_path / "blue.png")
    wait(lambda: on_canvas(page, 0.2, 0.5)[2] > 190)
    page.fill("#brush", "30")
    stroke(page, (0.8, 0.1), (0.8, 0.9))
    assert "repainted" in page.text_content("#marked") and not page.is_visible("#strengthrow")
    assert on_canvas(page, 0.8, 0.5)[3] == 2, "stripes of two tones, on any ground"
    page.click("#undo")
    assert page.text_content("#marked").startswith("Nothing is marked") and page.is_visible("#strengthrow")
    stroke(page, (0.8, 0.1), (0.8, 0.9))
    stroke(page, (0.1, 0.5), (0.2, 0.5))
    page.check("input[value=erase]")
    stroke(page, (0.05, 0.5), (0.3, 0.5))
    assert on_canvas(page, 0.15, 0.5)[:3] == [0, 0, 200], "nothing is left of that mark"
    page.fill("#prompt", "a cat")
    page.click("#draw")
    pictures(page, 1)
    made = np.asarray(newest(page).convert("RGB"), int)
    changed = abs(made - given).sum(2) > 0
    assert not changed[:, :12].any() and changed[:, 17:21].mean() > 0.5
    assert page.text_content("#gallery li p").startswith("a cat, where the picture was marked")
    page.click("#unmark")
    page.click("#gallery button")
    pictures(page, 2)
    sources = page.evaluate("[...document.querySelectorAll('#gallery img')].map(image => image.src)")
    assert sources[0] == sources[1], "the picture and its marks are put back"
    page.click("#gallery li:last-child button:has-text('Change')")
    until(page, "document.activeElement.id === 'canvas'")
    assert page.text_content("#marked").startswith("Nothing is marked")


@pytest.mark.slow
def test_a_picture_is_painted_and_changed_by_keyboard(opened, family):
    """A brush in a colour, on a white sheet; and marks by arrows and Space."""
    page = opened(family)
    page.check("input[value=edit]")
    page.check("input[value=paint]")
    page.fill("#colour", "#00c000")
    page.fill("#brush", "40")
    page.focus("#canvas")
    page.keyboard.press("Space")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.evaluate("document.activeElement.blur()")
    assert on_canvas(page, 0.4, 0.5)[:3] == [0, 192, 0] and on_canvas(page, 0.9, 0.9)[:3] == [255, 255, 255]
    page.fill("#strength", "0.5")
    assert page.text_content("#strengthshown") == "0.50"
    page.fill("#prompt", "a cat")
    page.keyboard.press("Control+Enter")
    pictures(page, 1)
    assert page.text_content("#gallery li p").startswith("a cat, from a picture, 0.5 anew")
    page.check("input[value=mark]")
    page.focus("#canvas")
    page.keyboard.press("Space")
    assert "repainted" in page.text_content("#marked")
    page.keyboard.press("Control+z")
    assert page.text_content("#marked").startswith("Nothing is marked")
    page.keyboard.press("Control+z")
    page.evaluate("document.activeElement.blur()")
    assert on_canvas(page, 0.4, 0.5)[:3] == [255, 255, 255], "the stroke of colour is undone, too"


@pytest.mark.slow
def test_on_a_phone(opened, family):
    """By touch alone."""
    page = opened(family, viewport=page_check.PHONE, has_touch=True, is_mobile=True)
    page.tap("input[value=edit]")
    page.locator("#canvas").scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    assert box["width"] <= 360
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until(page, "document.getElementById('marked').textContent.includes('repainted')")
    page.fill("#prompt", "a cat")
    page.tap("#draw")
    pictures(page, 1)


@pytest.mark.slow
def test_a_bundle_that_cannot_repaint_has_no_marks(opened, server):
    page = opened(server)
    page.check("input[value=edit]")
    assert not page.is_visible("input[value=mark]") and page.is_checked("input[value=paint]")


@pytest.mark.slow
def test_everybody_can_use_it(browser, server, family):
    for each in (server, family):
        look = page_check.check(browser, each.url)
        assert not any(look.faults.values()), page_check.report(look)
        assert len(look.states) == 15 and look.stops > 60


@pytest.mark.slow
def test_what_goes_wrong_is_said(opened, server, monkeypatch, tmp_path):
    page = opened(server)
    page.click("#draw")
    assert page.text_content("#message") == "Write what to draw."
    page.check("input[value=edit]")
    (tmp_path / "no.png").write_bytes(b"no picture")
    page.set_input_files("#open", tmp_path / "no.png")
    until(page, "document.getElementById('message').textContent === 'no.png is no picture that can be read.'")
    page.check("input[value=text]")
    page.fill("#prompt", "a cat")
    monkeypatch.setattr(server.service.worker.pipeline, "check", None)
    page.click("#draw")
    until(page, "document.getElementById('message').textContent.startsWith('No picture: a fault')")
    monkeypatch.undo()
    page.click("#draw")
    pictures(page, 1)
