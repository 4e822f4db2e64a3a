"""The page in a real browser: a picture from a prompt, a mix by sliders, keyboard, phone, labels and contrast.

With KANDINSKY_MINDIR_SCREENSHOTS=FOLDER the tests leave their screenshots there.
"""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from served import served, wait

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
LEAST_CONTRAST = 4.5  # WCAG 2.1, 1.4.3, level AA
SECONDS = 60_000  # ms

# What a page must not have: a control without a name, a picture without words, text that is hard to read, a target too small.
CHECKS = """() => {
  const faults = [], shown = element => element.getClientRects().length > 0;
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = element => {
    for (let node = element; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$/.test(color) && color !== 'transparent') return color;
    }
    return 'rgb(255, 255, 255)';
  };
  for (const control of document.querySelectorAll('input, select, textarea, button, progress')) {
    if (!shown(control)) continue;
    const named = control.getAttribute('aria-label') || control.textContent.trim() || (control.labels && control.labels.length);
    if (!named) faults.push('no name: ' + control.outerHTML.slice(0, 80));
    if (control.tagName === 'BUTTON' && control.getBoundingClientRect().height < 44) faults.push('small: ' + control.textContent);
  }
  for (const image of document.querySelectorAll('img')) if (shown(image) && !image.alt) faults.push('no words: ' + image.src.slice(0, 40));
  for (const element of document.querySelectorAll('body *')) {
    if (!shown(element) || ![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < LEAST) faults.push('contrast ' + ((a + .05) / (b + .05)).toFixed(1) + ': ' + element.textContent.slice(0, 40));
  }
  if (document.documentElement.scrollWidth > innerWidth) faults.push('wider than the screen');
  if (document.documentElement.lang !== 'en' || !document.title) faults.push('no language or title');
  return faults;
}""".replace("LEAST", str(LEAST_CONTRAST))


@pytest.fixture(scope="module")
def server(bundles):
    with served(bundles("narrow")) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def until(page, expression):
    """Wait for it from outside: the page's own policy forbids to evaluate text inside."""
    wait(lambda: page.evaluate(expression))


@pytest.fixture
def page(browser, server):
    """The page, connected. No error on its console, nothing asked of another host."""
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    page, faults = context.new_page(), []
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: request.url.startswith((server.url, "data:", "blob:")) or faults.append(request.url))
    page.set_default_timeout(SECONDS)
    page.goto(server.url)
    until(page, "document.getElementById('state').textContent === 'Ready.'")
    page.fill("#steps", "4")
    yield page
    context.close()
    assert not faults


def pictures(page, count):
    until(page, f"document.querySelectorAll('#gallery li').length === {count}")


def keep_screenshot(page, name):
    if folder := os.environ.get("KANDINSKY_MINDIR_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / name))


def test_a_picture_from_a_prompt(page, server):
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
    assert page.evaluate(CHECKS) == []
    keep_screenshot(page, "page_prompt.png")


@pytest.mark.slow
def test_a_mix_by_sliders(page, server, tmp_path):
    """A change of a weight draws anew from the same seed, and the prior is not run again."""
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
    assert page.evaluate(CHECKS) == []
    keep_screenshot(page, "page_mix.png")


@pytest.mark.slow
def test_keyboard_alone(page):
    page.reload()
    until(page, "document.getElementById('state').textContent === 'Ready.'")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.focus("#prompt")
    page.keyboard.type("a cat")
    page.keyboard.press("Control+Enter")
    pictures(page, 1)
    seen = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"negative", "size", "steps", "sampler", "seed", "draw", "Again", "Download"} <= seen


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ("light", "dark"))
def test_on_a_phone(scheme, browser, server):
    context = browser.new_context(viewport={"width": 360, "height": 700}, color_scheme=scheme, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(server.url)
    until(page, "document.getElementById('state').textContent === 'Ready.'")
    page.tap("input[value=mix]")
    page.tap("#addtext")
    assert page.evaluate(CHECKS) == []
    context.close()


@pytest.mark.slow
def test_what_goes_wrong_is_said(page, server, monkeypatch):
    page.click("#draw")
    assert page.text_content("#message") == "Write what to draw."
    page.fill("#prompt", "a cat")
    monkeypatch.setattr(server.service.worker.pipeline, "check", None)
    page.click("#draw")
    until(page, "document.getElementById('message').textContent.startsWith('No picture: a fault')")
    monkeypatch.undo()
    page.click("#draw")
    pictures(page, 1)
