"""Can everybody use the page? Looks at it in Chromium as Lighthouse does, and prints what it looked at and what is wrong.

    python tests/programs/page_check.py http://127.0.0.1:8000       a server that runs
    python tests/programs/page_check.py BUNDLE                      or serves a bundle for it

Each way to draw is looked at, on a wide screen and on a phone of 360 pixels, light and dark: names and roles as the browser
tells them to screen readers, contrasts computed from styles (text 4.5, edges and the focus 3), sizes of what is pressed,
the way of the Tab key and that one sees where it is, language, scrolling sideways, text twice as large, the console, and
requests to other hosts. It needs Chromium and playwright; the exit status is 1 if anything is wrong.
"""

import argparse
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import support_path  # noqa: F401

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
STATIC = (Path(__file__).parent / "page_checks.js").read_text()
WIDE, PHONE = {"width": 1000, "height": 900}, {"width": 360, "height": 700}
MOST_TABS = 200
CHECKS = ("names", "roles", "references", "contrast of text", "contrast of edges", "contrast of focus", "targets", "width",
          "keyboard", "language", "phones", "motion", "console", "requests")  # fmt: skip
# Roles of the accessibility tree, as Chromium calls them, that mean nothing without a name.
NAMED = {"button", "link", "textbox", "searchbox", "slider", "radio", "checkbox", "combobox", "listbox", "spinbutton",
         "progressbar", "ProgressIndicator", "image", "img", "application", "Canvas", "ColorWell", "form", "region"}  # fmt: skip
# All that Tab should stop at, in its order; of radio buttons with one name the chosen one.
STOPS = """() => [...document.querySelectorAll('*')].map((element, number) => [element, number]).filter(([element]) =>
  element.tabIndex >= 0 && !element.disabled && element.getClientRects().length && getComputedStyle(element).visibility !== 'hidden'
  && !(element.type === 'radio' && !element.checked && document.querySelector(`input[type=radio][name="${element.name}"]:checked`))
).map(([, number]) => number)"""
# Where the focus is: the number of its element, what to call it, and how well one sees it.
FOCUS = """() => {
  const element = document.activeElement, all = [...document.querySelectorAll('*')];
  if (!element || element === document.body) return null;
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$|transparent/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const ratio = node => {
    const style = getComputedStyle(node), [a, b] = [style.outlineColor, behind(node.parentElement)].map(light).sort((x, y) => y - x);
    return style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 2 ? 0 : (a + .05) / (b + .05);
  };
  const shows = [element, ...(element.labels || [])], box = element.getBoundingClientRect();
  return {number: all.indexOf(element), name: element.id || element.getAttribute('aria-label') || element.textContent.trim().slice(0, 30),
          ratio: Math.max(...shows.map(ratio)), seen: box.bottom > 0 && box.top < innerHeight};
}"""


class Look:
    """What was looked at and what was found. faults: by the check's name. least: the lowest contrasts."""

    def __init__(self) -> None:
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.least: dict[str, float] = {}
        self.states: list[str] = []
        self.stops = self.requests = 0

    def add(self, check: str, text: str, state: str) -> None:
        assert check in CHECKS
        self.faults[check].append(f"{text} ({state})")

    def at(self, page, state: str) -> None:
        """The page as it is now."""
        self.states.append(state)
        result = page.evaluate(STATIC)
        for check, texts in result["found"].items():
            for text in texts:
                self.add(check, text, state)
        for check, value in result["least"].items():
            self.least[check] = min(self.least.get(check, 21), value)
        self._roles(page, state)

    def _roles(self, page, state: str) -> None:
        session = page.context.new_cdp_session(page)
        nodes = [node for node in session.send("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
        session.detach()
        roles = [(node.get("role", {}).get("value", ""), node.get("name", {}).get("value", "").strip(), node) for node in nodes]
        for role, name, _ in roles:
            if role in NAMED and not name:
                self.add("names", f"a {role} without a name", state)
        levels = [prop["value"]["value"] for role, _, node in roles if role == "heading"
                  for prop in node.get("properties", []) if prop["name"] == "level"]  # fmt: skip
        if levels.count(1) != 1 or any(after > before + 1 for before, after in pairwise(levels)):
            self.add("roles", f"headings have the levels {levels}", state)
        if [role for role, _, _ in roles].count("main") != 1:
            self.add("roles", "there is not one main part", state)

    def keyboard(self, page, state: str) -> None:
        """Tab from the top to the end: every stop once, in the order of the page, and each is seen."""
        page.evaluate("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex'); scrollTo(0, 0)")
        wanted, names, went = page.evaluate(STOPS), {}, []
        for _ in range(min(len(wanted) + 5, MOST_TABS)):
            page.keyboard.press("Tab")
            focus = page.evaluate(FOCUS)
            if focus is None or (went and focus["number"] == went[0]):
                break
            went.append(focus["number"])
            names[focus["number"]] = focus["name"]
            self.least["contrast of focus"] = min(self.least.get("contrast of focus", 21), focus["ratio"])
            if focus["ratio"] < 3:
                self.add("contrast of focus", f"{focus['name']}: {focus['ratio']:.2f}", state)
            if not focus["seen"]:
                self.add("keyboard", f"{focus['name']} is outside of the window when it has the focus", state)
        self.stops += len(went)
        if went != wanted:
            missed = [number for number in wanted if number not in went]
            text = f"Tab does not come to {len(missed)} of {len(wanted)} controls" if missed else "Tab leaves the order of the page"
            self.add("keyboard", f"{text}: it goes to {', '.join(names.values())}", state)


@contextmanager
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        found = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@contextmanager
def visit(browser, url: str, look: Look, state: str, **options) -> Iterator:
    """The page at `url`. What its console says and what it asks of others is added to `look`."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.on("console", lambda message: message.type in ("error", "warning") and look.add("console", message.text, state))
    page.on("pageerror", lambda error: look.add("console", str(error), state))

    def asked(request):
        look.requests += 1
        if not request.url.startswith((url, "data:", "blob:")):
            look.add("requests", request.url, state)

    page.on("request", asked)
    page.goto(url)
    yield page
    context.close()


def ready(page) -> None:
    page.get_by_text("Ready.", exact=True).wait_for()


def states(page) -> Iterator[str]:
    """The page in each of its ways to draw, or as it is where it has none."""
    kinds = page.evaluate("[...document.querySelectorAll('input[name=kind]')].filter(e => e.getClientRects().length).map(e => e.value)")
    if not kinds:
        yield "as it is"
    for kind in kinds:
        page.check(f"input[name=kind][value={kind}]")
        if kind == "mix":
            page.click("#addtext")
        yield kind


def check(browser, url: str) -> Look:
    look = Look()
    for scheme in ("light", "dark"):
        for size, options in (("wide", {"viewport": WIDE}), ("phone", {"viewport": PHONE, "is_mobile": True, "has_touch": True})):
            with visit(browser, url, look, f"{scheme}, {size}", color_scheme=scheme, **options) as page:
                ready(page)
                for kind in states(page):
                    look.at(page, f"{kind}, {scheme}, {size}")
                    if size == "wide":
                        look.keyboard(page, f"{kind}, {scheme}")
    with visit(browser, url, look, "text twice as large", viewport=WIDE) as page:
        ready(page)
        page.evaluate("document.documentElement.style.fontSize = '200%'")
        for kind in states(page):
            look.at(page, f"{kind}, text twice as large")
    return look


def report(look: Look) -> str:
    lines = [f"{len(look.states)} states, {look.stops} stops of the Tab key, {look.requests} requests"]
    for name in CHECKS:
        faults = list(dict.fromkeys(look.faults[name]))
        measured = f", {look.least[name]:.2f} at least" if name in look.least else ""
        lines += [f"{name:18} {'right' if not faults else f'{len(faults)} faults'}{measured}", *(f"    WRONG: {fault}" for fault in faults[:10])]
    return "\n".join(lines)


def main() -> int:
    from served import served

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", metavar="URL or BUNDLE")
    args = parser.parse_args()
    running = args.target.startswith(("http://", "https://"))
    with nullcontext(SimpleNamespace(url=args.target)) if running else served(args.target) as server, browser() as chromium:
        look = check(chromium, server.url)
    print(report(look))
    return 1 if any(look.faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
