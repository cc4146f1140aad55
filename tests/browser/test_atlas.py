"""The atlas in a real browser, opened from disk: search, permalinks, colours, a phone, and no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from culnig_tl.pages.atlas import write_atlas

from ..studies import small_study


@pytest.fixture(scope="module")
def site(checkpoints, tmp_path_factory) -> Path:
    study = small_study(str(checkpoints("llama")))
    return write_atlas(
        study, tmp_path_factory.mktemp("atlas"), limit=24, alone=6, device="cpu", progress=False
    )


@pytest.fixture
def watched(page: Any) -> tuple[Any, list[str]]:
    """The page, and what it complains of or asks the network for."""
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or wrong.append(r.url))
    page.context.set_offline(True)
    return page, wrong


def test_search_and_permalinks(watched, site):
    page, wrong = watched
    page.goto(site.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    everything = page.locator("[role=status]").inner_text()
    name = page.locator("tbody tr a").nth(1).inner_text()
    page.get_by_label("Search").fill(name)
    assert name in page.locator("tbody tr a").all_inner_texts()
    assert page.locator("[role=status]").inner_text() != everything
    address, found = page.url, page.locator("tbody").inner_text()
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.locator("tbody").inner_text() == found and page.get_by_label("Search").input_value() == name

    page.get_by_role("link", name=name, exact=True).click()
    assert page.locator("h1").inner_text() == name
    page.locator("h2 a", has_text="Neighbours").click()
    assert page.url.endswith(".html#neighbours")
    page.get_by_label("Search all neurons").fill("mlp.gate")
    page.get_by_label("Search all neurons").press("Enter")
    page.wait_for_selector("html[data-ready]", state="attached")
    names = page.locator("tbody tr a").all_inner_texts()
    assert names and all("mlp.gate" in each for each in names)

    page.get_by_label("Search").fill("")
    page.get_by_role("button", name="score").click()
    page.get_by_role("button", name="score").click()
    shown = page.locator("tbody td:nth-child(2)").all_inner_texts()
    scores = [float(text.replace("−", "-")) for text in shown]
    assert scores == sorted(scores) and "way=ascending" in page.url
    page.get_by_label("Search").fill("nothing-has-this")
    assert "No neuron" in page.locator("[role=status]").inner_text()
    assert wrong == []


def test_a_neurons_page_on_a_phone_in_the_dark(browser, site):
    paper = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(
            viewport={"width": 390, "height": 800},
            color_scheme=scheme,
            offline=True,
            java_script_enabled=True,
        )
        page = context.new_page()
        for path in (site, sorted((site.parent / "neurons").iterdir())[0]):
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path.name
        assert page.locator("svg").count() == 2 and page.locator(".tokens i").count() > 0
        paper[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
        context.close()
    assert paper["light"] == "rgb(255, 255, 255)" and paper["dark"] != paper["light"]
