"""A real browser: Debian's Chromium (or any Chrome) driven by Playwright. Tests are skipped, and say why,
where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = ("/usr/bin", "/usr/local/bin", "/snap/bin")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in this folder is a browser test."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


def find_chromium() -> str | None:
    """The program: CULNIG_CHROMIUM where it is set, else the first that is installed."""
    given = os.environ.get("CULNIG_CHROMIUM")
    if given is not None:
        return given or None
    return next(
        (
            found
            for name in NAMES
            if (found := shutil.which(name) or shutil.which(name, path=os.pathsep.join(PLACES)))
        ),
        None,
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Playwright's `Browser`, started once per session."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="browser tests need playwright: pip install -e '.[dev]'"
    )
    program = find_chromium()
    if program is None:
        pytest.skip(
            "browser tests need Chromium or Chrome: apt-get install chromium, "
            "or set CULNIG_CHROMIUM to the program"
        )
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A fresh page, 1280 x 900, in a context of its own; downloads are allowed, `page.context` is closed
    after the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()
