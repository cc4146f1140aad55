"""The pages of studies in a real browser, opened from disk: nothing is fetched, figures are drawn, names are
shown on hovering, tables sort."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from culnig_tl.analyses.checkpoints import compare_checkpoints
from culnig_tl.figures.gallery import figures_of
from culnig_tl.pages.comparison_page import write_comparison
from culnig_tl.pages.page import write_figures
from culnig_tl.pages.report import write_report
from culnig_tl.run.pipeline import run_study
from culnig_tl.study.config import GENERAL, SPECIFIC, StudyConfig
from culnig_tl.study.study import Study

from ..studies import CASES, made_study

HOSTILE = "<script>window.hit=1</script><b>bold</b>&amp;"
MARKS = (
    ".point, .bars .point path, .heatmaplayer image, .hm image, .imagelayer image, .barlayer path, "
    ".scatterlayer path"
)


class Opened:
    """A page with what it said and asked for while it was open."""

    def __init__(self, page: Any, path: Path) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.context.set_offline(True)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)

    @property
    def plots(self) -> list[str]:
        return self.page.eval_on_selector_all(".plot", "places => places.map((place) => place.id)")


@pytest.fixture(scope="session")
def real_study(checkpoints, tmp_path_factory) -> Study:
    """A whole study of a small random checkpoint, from its folder."""
    folder = tmp_path_factory.mktemp("browser") / "study"
    config = StudyConfig(
        model=str(checkpoints("llama")),
        tasks=("miniculture", "minicommonsense"),
        reading="minireading",
        rival="minicommonsense",
        top_mlp=0.2,
        top_attn=0.1,
        top_specific=0.1,
        random_sets=2,
        limit=24,
        device="cpu",
    )
    run_study(config, folder=folder, progress=False)
    return Study.load(folder)


@pytest.fixture(scope="session")
def made() -> Study:
    """A study with known answers: half of the cultural questions lost, little else."""
    return made_study(**CASES["shown"])


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    """`reports(case)`: the page of a made-up study, written once."""
    folder, written = tmp_path_factory.mktemp("reports"), {}

    def report(case: str) -> Path:
        if case not in written:
            written[case] = write_report(made_study(**CASES[case]), folder / f"{case}.html")
        return written[case]

    return report


@pytest.fixture
def opened(page, reports) -> Opened:
    return Opened(page, reports("shown"))


def test_a_real_study_opens_from_disk_and_draws_every_figure(page, real_study):
    opened = Opened(page, real_study.folder / "report.html")
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("file:", "data:"))] == []
    assert opened.plots == list(figures_of(real_study)) and len(opened.plots) >= 7
    for name in opened.plots:
        assert page.locator(f"#{name}").locator(MARKS).count() > 0, f"{name} has no marks"
        box = page.locator(f"#{name} .main-svg").first.bounding_box()
        assert box["width"] > 300 and box["height"] > 150, name
    assert page.title() == f"Culture neurons of {real_study.config.model}"
    assert page.locator(".lead").inner_text() == real_study.findings().headline()


def test_marks_are_those_of_the_numbers(opened, made):
    assert opened.page.evaluate("document.getElementById('layer_distribution').data.length") == 1 + len(
        made.neurons[GENERAL].counts("site")
    )
    ends = opened.page.locator("#country_accuracy .scatterlayer .point")
    assert ends.count() == 2 * 3, "three countries, before and after"
    assert opened.page.locator("#drops .scatterlayer .point").count() == 3 + 3 + 3


def test_hovering_names_the_neuron(opened, made):
    page = opened.page
    page.locator("#layer_heatmap").scroll_into_view_if_needed()
    place = page.evaluate(
        """() => { const plot = document.getElementById('layer_heatmap'), full = plot._fullLayout;
        const trace = plot.data.find((t) => t.type === 'heatmap'), z = plot._fullData[plot.data.indexOf(trace)].z;
        for (let y = 0; y < z.length; y++) for (let x = 0; x < z[y].length; x++) if (z[y][x] > 0) {
          const box = plot.getBoundingClientRect(), xa = full.xaxis, ya = full.yaxis;
          return {x: box.left + xa._offset + xa.c2p(x), y: box.top + ya._offset + ya.c2p(y), layer: y, neuron: x};
        } }"""
    )
    page.mouse.move(place["x"] - 3, place["y"])
    page.mouse.move(place["x"], place["y"], steps=3)
    page.wait_for_selector("#layer_heatmap .hoverlayer .hovertext", timeout=5_000)
    said = page.locator("#layer_heatmap .hoverlayer").text_content()
    keys = made.neurons[GENERAL].keys()
    assert ("mlp.gate", place["layer"], place["neuron"]) in keys
    assert f"layer {place['layer']}" in said and re.search(rf"\b{place['neuron']}\b", said), said


def _column(page: Any, name: str) -> list[str]:
    names = page.locator("[data-table].neurons thead th").all_inner_texts()
    at = next(i for i, text in enumerate(names) if text.split()[0] == name)
    return [
        row[at]
        for row in page.eval_on_selector_all(
            "[data-table].neurons tbody tr",
            "rows => rows.map((r) => [...r.children].map((c) => c.textContent))",
        )
    ]


def test_the_table_sorts_by_mouse_and_keyboard(opened, made):
    page = opened.page
    sorts = "heads => heads.map((h) => h.getAttribute('aria-sort'))"
    assert page.eval_on_selector_all("[data-table].neurons thead th", sorts) == ["none"] * 4 + ["descending"]
    scores = [float(value) for value in _column(page, "score")]
    assert scores == sorted(scores, reverse=True) and len(scores) == 10
    page.get_by_role("button", name="layer").click()
    layers = [int(value) for value in _column(page, "layer")]
    assert layers == sorted(layers) and layers[0] == 0
    assert page.eval_on_selector_all("[data-table].neurons thead th", sorts)[2] == "ascending"
    page.keyboard.press("Enter")
    layers = [int(value) for value in _column(page, "layer")]
    assert layers == sorted(layers, reverse=True) and layers[0] == 3
    assert page.eval_on_selector_all("[data-table].neurons thead th", sorts)[2] == "descending"
    page.get_by_role("button", name="neuron").click()
    assert [int(v) for v in _column(page, "neuron")] == sorted(int(v) for v in _column(page, "neuron")), (
        "numbers sort as numbers"
    )


def test_the_table_turns_pages_and_filters(opened, made):
    page, total = opened.page, len(made.neurons[GENERAL]) + len(made.neurons[SPECIFIC])
    status = page.locator("[data-table].neurons [role=status]")
    assert status.inner_text() == f"Rows 1 to 10 of {total}"
    page.locator(".neurons [data-go=next]").click()
    assert status.inner_text().startswith("Rows 11 to")
    page.get_by_label("set", exact=True).select_option("Spain")
    spain = len(made.neurons[SPECIFIC].for_country("Spain"))
    assert status.inner_text() == f"Rows 1 to 10 of {spain}" and set(_column(page, "set")) == {"Spain"}
    for _ in range(-(-spain // 10) - 1):
        page.locator(".neurons [data-go=next]").click()
    assert page.locator(".neurons [data-go=next]").is_disabled()


def test_the_download_has_the_rows(opened, made):
    page = opened.page
    with page.expect_download() as waiting:
        page.locator(".neurons [data-download]").click()
    assert waiting.value.suggested_filename == "neurons.csv"
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8"))))
    general = [row for row in rows if row["set"] == GENERAL]
    assert {(row["site"], int(row["layer"]), int(row["neuron"])) for row in general} == made.neurons[
        GENERAL
    ].keys()
    assert len(rows) == len(made.neurons[GENERAL]) + len(made.neurons[SPECIFIC])
    best = made.neurons[GENERAL].top(1).iloc[0]
    assert float(general[0]["score"]) == pytest.approx(best["score"], rel=1e-4)
    page.get_by_label("site", exact=True).select_option("attn.v")
    with page.expect_download() as waiting:
        page.locator(".neurons [data-download]").click()
    chosen = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8"))))
    assert {row["site"] for row in chosen} == {"attn.v"} and 0 < len(chosen) < len(rows)


def test_keyboard_reaches_everything_in_order(opened):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen, focus = (
        [],
        """(() => { const now = document.activeElement;
        return [now.tagName, now.getBoundingClientRect().top + scrollY, getComputedStyle(now).outlineStyle]; })()""",
    )
    for _ in range(120):
        page.keyboard.press("Tab")
        tag, top, outline = page.evaluate(focus)
        if tag == "BODY":
            break
        seen.append((tag, top))
        assert outline != "none", f"the focus on {tag} cannot be seen"
    tops = [top for _, top in seen]
    assert tops == sorted(tops), "the tab order is the order of the page"
    assert {"BUTTON", "SELECT", "DIV"} <= {tag for tag, _ in seen}
    assert page.evaluate("[...document.querySelectorAll('[tabindex]')].every((e) => e.tabIndex <= 0)")


CONTRAST = """() => {
  const parse = (colour) => { const v = colour.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
  const light = ([r, g, b]) => {
    const f = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const hidden = 'script, style, noscript, svg, .plot, [hidden], button:disabled', white = [255, 255, 255];
  const out = [], walker = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest(hidden)) continue;
    let back = element;
    while (back && parse(getComputedStyle(back).backgroundColor)[3] === 0) back = back.parentElement;
    const a = light(parse(getComputedStyle(element).color));
    const b = light(back ? parse(getComputedStyle(back).backgroundColor) : white);
    out.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return out; }"""


@pytest.mark.parametrize("case", ["shown", "both", "nearly alone"])
def test_contrast_is_enough_in_every_state(page, reports, case):
    opened = Opened(page, reports(case))
    ratios = opened.page.evaluate(CONTRAST)
    assert len(ratios) > 100
    assert min(ratios)[0] >= 4.5, min(ratios)


def test_a_phone_scrolls_only_down(browser, reports):
    context = browser.new_context(viewport={"width": 360, "height": 740}, device_scale_factor=2)
    opened = Opened(context.new_page(), reports("shown"))
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert opened.page.locator(".lead").bounding_box()["y"] < 740, "the verdict is on the first screen"
    context.close()


def test_a_row_and_a_cell_open_the_same_neurons_card(opened):
    page = opened.page
    site, layer, neuron = (_column(page, name)[0] for name in ("site", "layer", "neuron"))
    title = f"{site}, layer {layer}, neuron {neuron}"
    page.locator(".neurons tbody tr").first.click()
    assert page.locator("#card-title").inner_text() == title
    by_row = page.locator("#card").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#card").is_visible()
    page.evaluate("(text) => named({hovertext: text})", f"layer 1, mlp.gate 0 to 9\n{title}: 0.1")
    assert page.locator("#card").inner_text() == by_row


def test_flipped_questions_are_filtered_by_country(opened, made):
    page = opened.page
    page.locator(".flips select[name=country]").select_option("Spain")
    rows = page.eval_on_selector_all(
        ".flips tbody tr", "rows => rows.map((r) => [...r.children].map((c) => c.textContent))"
    )
    assert rows and {row[0] for row in rows} == {"Spain"} and all(row[4] != row[5] for row in rows)


def test_a_finger_scrolls_over_figures_that_fit_a_phone(browser, reports):
    context = browser.new_context(viewport={"width": 390, "height": 740}, has_touch=True, is_mobile=True)
    page = Opened(context.new_page(), reports("shown")).page
    for name in page.eval_on_selector_all(".plot", "all => all.map((one) => one.id)"):
        box = page.locator(f"#{name} .main-svg").first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390, name
        assert page.evaluate(f"document.getElementById('{name}')._fullLayout.dragmode") is False
    assert page.locator(".modebar").count() == 0
    context.close()


def test_a_dark_system_has_a_dark_page_and_dark_figures(browser, reports):
    context = browser.new_context(color_scheme="dark")
    page = Opened(context.new_page(), reports("shown")).page
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    figure = page.evaluate("document.getElementById('drops')._fullLayout.paper_bgcolor")
    assert back == "rgb(21, 25, 30)" and figure == "#15191E"
    assert min(page.evaluate(CONTRAST))[0] >= 4.5
    context.close()


def test_printing_shows_every_figure_and_no_controls(opened):
    page = opened.page
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    widths = page.eval_on_selector_all(
        ".plot .main-svg", "all => all.map((one) => Number(one.getAttribute('width')))"
    )
    assert set(widths) == {680}, "figures fit the width of a sheet"
    assert not page.locator("nav").is_visible() and not page.locator(".neurons [data-go=next]").is_visible()
    assert page.locator("#drops .scatterlayer .point").count() == 9
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("#drops .main-svg").first.evaluate("(one) => Number(one.getAttribute('width'))") > 900
    assert len(page.pdf()) > 20_000


def test_hostile_names_are_text_in_every_place(page, tmp_path):
    tasks = {HOSTILE: True, "sense": False}
    study = made_study(
        own={HOSTILE: 0.5}, random={}, tasks=tasks, model=HOSTILE, countries=(HOSTILE, "Spain", "Iran")
    )
    opened = Opened(page, write_report(study, tmp_path / "report.html"))
    assert opened.said == [] and page.evaluate("window.hit") is None
    assert page.locator("h1").inner_text() == f"Culture neurons of {HOSTILE}"
    assert page.locator("#drops .ytick text").first.text_content() == f"{HOSTILE} (culture)"
    assert page.locator("#country_heatmap .xtick text").first.text_content().startswith(HOSTILE)
    page.get_by_label("set", exact=True).select_option(HOSTILE)
    assert set(_column(page, "set")) == {HOSTILE}
    several = compare_checkpoints(
        {HOSTILE: study, "plain": made_study(own={HOSTILE: 0.5}, random={}, tasks=tasks, seed=1)}
    )
    opened = Opened(page, write_comparison(several, tmp_path / "compare.html"))
    assert opened.said == [] and page.evaluate("window.hit") is None
    assert HOSTILE in page.locator("#checkpoint-heatmap .xaxislayer-above").text_content()


def test_figure_files_with_hostile_names_run_nothing_and_ask_for_nothing(page, tmp_path):
    countries = (HOSTILE, "Spain", "Iran")
    study = made_study(
        own={HOSTILE: 0.5}, random={}, tasks={HOSTILE: True, "sense": False}, countries=countries
    )
    write_figures(figures_of(study), tmp_path)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    files = sorted(tmp_path.glob("*.html"))
    for path in files:
        page.goto(path.as_uri())
        page.wait_for_selector(".main-svg", state="attached")
        assert page.evaluate("window.hit") is None, path.name
    print(f"{len(files)} files of figures, {len(asked)} requests")
    assert len(files) >= 7 and [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_a_downloaded_cell_is_no_formula(page, tmp_path):
    study = made_study(own={"food": 0.5}, random={}, countries=("=1+1", "Spain", "Iran"))
    page = Opened(page, write_report(study, tmp_path / "report.html")).page
    with page.expect_download() as waiting:
        page.locator(".neurons [data-download]").click()
    rows = list(csv.DictReader(io.StringIO(Path(waiting.value.path()).read_text(encoding="utf-8"))))
    assert {row["set"] for row in rows} == {GENERAL, "'=1+1", "Spain", "Iran"}
    assert all(float(row["score"]) for row in rows if row["set"] == GENERAL), "numbers stay numbers"


def test_the_page_of_several_studies(page, made, tmp_path):
    studies = {
        "base": made,
        "sft": made_study(**CASES["both"], seed=1),
        "dpo": made_study(**CASES["not alone"], seed=2),
    }
    opened = Opened(page, write_comparison(compare_checkpoints(studies), tmp_path / "compare.html"))
    assert opened.said == [] and [url for url in opened.asked if not url.startswith(("file:", "data:"))] == []
    assert opened.plots == ["drops", "accuracy-bars", "checkpoint-heatmap", "depth"]
    for name in opened.plots:
        assert page.locator(f"#{name}").locator(MARKS).count() > 0, name
    assert page.locator("#checkpoint-heatmap .xtick text").count() == 3
    ratios = page.evaluate(CONTRAST)
    assert min(ratios)[0] >= 4.5, min(ratios)
