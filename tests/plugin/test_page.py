"""The page of ``--asyncdb-report=x.html`` in a real browser: time, keys, light and dark."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fix_servers import WORDS
from playwright.sync_api import Browser, Page, sync_playwright

from pytest_asyncdb.reports.html import page as written

pytestmark = pytest.mark.complete

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
#: Milliseconds in which a page of 2,000 tests on 6 backends is there.
OPENS = 1000


@pytest.fixture
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        said = f"no browser on PATH: {', '.join(PROGRAMS)}"
        if "browser" in os.environ.get("ASYNCDB_TEST_REQUIRE", ""):
            pytest.fail(f"ASYNCDB_TEST_REQUIRE names browser: {said}", pytrace=False)
        pytest.skip(said)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


ERROR = {
    "when": "call",
    "cause": "values",
    "type": "AssertionError",
    "message": "assert 1 is True",
    "code": None,
    "statement": "SELECT 1 = 1",
}


def content(number: int) -> dict[str, Any]:
    """A report of so many tests on six backends; every 20th differs on three of these."""
    tests, differences = [], []
    for n in range(number):
        name = f"tests/test_module_{n // 50}.py::test_some_behaviour_{n}[case-{n % 7}]"
        bad = WORDS[3:] if n % 20 == 0 else ()
        on = {
            word: {
                "outcome": "failed" if word in bad else "passed",
                "seconds": {"setup": 0.002, "call": n / 1e5, "teardown": 0.001},
                "error": ERROR if word in bad else None,
            }
            for word in WORDS
        }
        differences += [name] * bool(bad)
        tests.append({"test": name, "cause": "values" if bad else None, "on": on})
    return {
        "asyncdb_report": 3,
        "backends": list(WORDS),
        "left_out": [],
        "differences": {"values": differences},
        "tests": tests,
    }


def opened(browser: Browser, path: Path, number: int, **how: Any) -> Page:
    file = path / f"{number}.html"
    if not file.exists():
        file.write_text(written(content(number)), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 800}, **how)
    page.goto(file.as_uri())
    return page


#: After the first frame that shows the whole page.
SHOWN = """() => new Promise(done => requestAnimationFrame(
    () => setTimeout(() => done(performance.now()), 0)))"""


def test_it_opens_in_a_second(browser: Browser, tmp_path: Path) -> None:
    """The best of five, since the machine does other things, too."""
    times = []
    for _ in range(5):
        page = opened(browser, tmp_path, 2000)
        times.append(page.evaluate(SHOWN))
        assert page.locator("tbody tr").count() == 2000
        page.close()
    print(f"2,000 tests on 6 backends, milliseconds: {sorted(map(round, times))}")
    assert min(times) < OPENS


def visible(page: Page) -> int:
    return page.locator("tbody tr:visible").count()


def test_it_works_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    """One checkbox leaves only the tests that differ; Enter opens the errors of one."""
    page = opened(browser, tmp_path, 60)
    keyboard = page.keyboard
    assert visible(page) == 60
    keyboard.press("Tab")
    keyboard.press("Space")
    assert visible(page) == 3

    details = page.locator("details").first
    said = details.locator("p")
    assert not said.is_visible()
    for _ in range(5):
        keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    keyboard.press("Enter")
    assert said.is_visible()
    assert (
        "mysql+asyncmy failed: setup 2.00 ms, call 0.00 ms, teardown 1.00 ms" in said.inner_text()
    )
    assert "in call: assert 1 is True" in said.inner_text()
    keyboard.press("Enter")
    assert not said.is_visible()


#: Contrast of a selector's text against what is behind it, as WCAG 2 defines it.
CONTRAST = """selector => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [.2126, .7152, .0722][n], 0);
  const element = document.querySelector(selector);
  let behind = element, back = [0, 0, 0, 0];
  while (behind && (back.length > 3 && back[3] === 0)) {
    back = parts(getComputedStyle(behind).backgroundColor); behind = behind.parentElement;
  }
  const both = [light(parts(getComputedStyle(element).color)), light(back)].sort((a, b) => b - a);
  return (both[0] + .05) / (both[1] + .05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(browser: Browser, tmp_path: Path, scheme: Any) -> None:
    """In both schemes every text stands out from what is behind it (WCAG AA: 4.5)."""
    page = opened(browser, tmp_path, 60, color_scheme=scheme)
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 24, 28)"}[scheme]
    for selector in ("h1", "summary", "thead th", "td.good", "td.bad", "td small", "td.bad small"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector
    assert (tmp_path / "shot.png").write_bytes(page.screenshot()) > 10_000


def test_it_loads_nothing_and_needs_no_script(browser: Browser, tmp_path: Path) -> None:
    """Also where the browser runs no scripts."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    file = tmp_path / "x.html"
    file.write_text(written(content(60)), encoding="utf-8")
    page.goto(file.as_uri())
    assert asked == [file.as_uri()]
    assert page.locator("script").count() == 0
    page.locator("#only").check()
    assert visible(page) == 3
