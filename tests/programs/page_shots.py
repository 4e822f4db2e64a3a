"""Takes the README's picture of the page, in Chromium: a mix whose weights were moved, and a picture that was repainted where
the mouse had marked it.

    python tests/programs/page_shots.py BUNDLE --output artifacts/page.png

BUNDLE: of the shipped checkpoint, with its inpainting decoder. It needs Chromium and playwright.
"""

import argparse
import io
from pathlib import Path

import page_check
import support_path  # noqa: F401
from PIL import Image
from served import served, wait

VIEWPORT = {"width": 800, "height": 900}
COLOURS = 128  # of the file, which is small then
SLIDER = "#items li:first-child input[type=range]"


def pictures(page, count: int) -> None:
    wait(lambda: page.locator("#gallery li").count() == count)


def mix(page) -> Image.Image:
    """Two texts, and the pictures of three weights."""
    page.check("input[value=mix]")
    for text in ("a red heart", "a blue heart"):
        page.click("#addtext")
        page.keyboard.type(text)
    page.fill("#seed", "7")
    page.click("#draw")
    pictures(page, 1)
    for count, weight in ((2, "0.3"), (3, "0.8")):
        page.fill(SLIDER, weight)
        pictures(page, count)
    return shot(page)


def repaint(page, picture: Path) -> Image.Image:
    """A picture whose right half is marked by mouse, and what is made of it."""
    page.check("input[value=edit]")
    page.set_input_files("#open", picture)
    page.fill("#prompt", "a tiger")
    page.fill("#brush", "40")
    box = page.locator("#canvas").bounding_box()
    x, y, width, height = (box[name] for name in ("x", "y", "width", "height"))
    page.mouse.move(x + width * 0.75, y + height * 0.05)
    page.mouse.down()
    for share in (0.75, 0.85):
        page.mouse.move(x + width * share, y + height * 0.95, steps=9)
        page.mouse.move(x + width * share, y + height * 0.05, steps=9)
    page.mouse.up()
    for count, seed in enumerate(("1", "2", "3"), 1):
        page.fill("#seed", seed)
        page.click("#draw")
        pictures(page, count)
    return shot(page)


def shot(page) -> Image.Image:
    return Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--output", type=Path, default=Path("artifacts/page.png"), metavar="FILE")
    parser.add_argument("--picture", type=Path, default=Path("artifacts/micro/pictures/lion.png"), metavar="FILE",
                        help="what is repainted (default: the shipped lion)")
    args = parser.parse_args()
    shots = []
    with served(args.bundle) as server, page_check.browser() as browser:
        for take in (mix, lambda page: repaint(page, args.picture)):
            look = page_check.Look()
            with page_check.visit(browser, server.url, look, "shot", viewport=VIEWPORT, color_scheme="light") as page:
                page_check.ready(page)
                shots.append(take(page))
            assert not look.faults, dict(look.faults)
    sheet = Image.new("RGB", (sum(image.width for image in shots), max(image.height for image in shots)), "white")
    for number, image in enumerate(shots):
        sheet.paste(image, (number * VIEWPORT["width"], 0))
    sheet.quantize(COLOURS).save(args.output, optimize=True)
    print(f"{args.output}: {sheet.width}x{sheet.height}, {args.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
