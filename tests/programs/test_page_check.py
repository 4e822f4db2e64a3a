"""The program page_check.py finds what is wrong: pages with one fault each, and one without."""

import page_check
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(page_check.CHROMIUM is None, reason="there is no Chromium")]
STYLE = "button, input { min-height: 44px; border: 1px solid #555 } :focus-visible { outline: 3px solid #00f; outline-offset: 2px }"
GOOD = "<p role='status'>Ready.</p><label for='a'>Name</label><input id='a'><button>Go</button><img alt='a cat' width='9' height='9'>"
# (check, what makes the page bad: its body, its style, its head)
PLANTS = [
    ("names", "<button></button>", "", ""),
    ("names", "<input id='b'>", "", ""),
    ("names", "<img src='data:,' width='9' height='9'>", "", ""),
    ("roles", "<h3>Deep</h3>", "", ""),
    ("roles", "<main></main>", "", ""),
    ("references", "<p id='a'>again</p>", "", ""),
    ("references", "<label for='nothing'>Nothing</label>", "", ""),
    ("contrast of text", "<p>pale</p>", "p:last-child { color: #949494 }", ""),  # 3.03 on white
    ("contrast of text", "", "@media (prefers-color-scheme: dark) { body { background: #000 } }", ""),
    ("contrast of edges", "", "input { border-color: #bbb !important }", ""),
    ("contrast of focus", "", ":focus-visible { outline: none !important }", ""),
    ("contrast of focus", "", ":focus-visible { outline-color: #ccc !important }", ""),
    ("targets", "", "button { min-height: 30px !important }", ""),
    ("targets", "<a href='#a' style='font-size: 8px'>small</a>", "", ""),
    ("width", "<div style='width: 500px'>wide</div>", "", ""),
    ("keyboard", "<button tabindex='3'>First</button>", "", ""),
    ("keyboard", "<input aria-label='trap' onkeydown='event.preventDefault()'><button>Never</button>", "", ""),
    ("language", "", "", "no language"),
    ("phones", "", "", "<meta name='viewport' content='width=device-width, user-scalable=no'>"),
    ("motion", "<p>moves</p>", "@keyframes m { to { opacity: .9 } } p { animation: m 9s infinite }", ""),
    ("console", "<script>console.error('broken')</script>", "", ""),
    ("console", "<script>undefined.x</script>", "", ""),
    ("requests", "<img alt='' src='http://127.0.0.1:1/x.png'>", "", ""),
]


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with page_check.browser() as found:
        yield found


def look_at(browser, tmp_path, body="", style="", head=""):
    language = "" if head == "no language" else " lang='en'"
    viewport = head if head.startswith("<meta") else "<meta name='viewport' content='width=device-width'>"
    (tmp_path / "page.html").write_text(
        f"<!doctype html><html{language}><head><meta charset='utf-8'><title>A page</title><link rel='icon' href='data:,'>{viewport}"
        f"<style>{STYLE} {style}</style></head><body style='color-scheme: light'><main><h1>A page</h1>{GOOD}{body}</main></body></html>")
    return page_check.check(browser, (tmp_path / "page.html").as_uri())


def test_a_page_without_faults(browser, tmp_path):
    look = look_at(browser, tmp_path)
    assert not any(look.faults.values()), page_check.report(look)


@pytest.mark.parametrize("name, body, style, head", PLANTS, ids=[f"{row[0]}-{number}" for number, row in enumerate(PLANTS)])
def test_a_fault_is_found(name, body, style, head, browser, tmp_path):
    look = look_at(browser, tmp_path, body, style, head)
    assert look.faults[name] and f"{name:18} " in page_check.report(look) and "WRONG" in page_check.report(look)
