"""The workbench in JupyterLab: a real server, a real kernel, a real mouse; and what an exported notebook
shows without them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import culnig_tl as ctl

pytest.importorskip(
    "jupyterlab", reason="the workbench's browser tests need jupyterlab: pip install -e '.[dev]'"
)
nbformat: Any = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[2]
LONG = 120_000
"""Milliseconds that a slow machine may take for one step."""
SHOW = """\
import culnig_tl as ctl
scores = ctl.NeuronScores.load("scores.safetensors")
neurons = ctl.NeuronSet.load("neurons.parquet")
view = ctl.explore(scores, neurons=neurons, questions=40)
view"""
STATE = """\
import json
print("STATE", json.dumps([len(view.selection), view.neuron, view.operation, view.answers.before.labels, view.answers.after.labels]))"""
SET = """\
view.selection = ctl.NeuronSet.from_indices([("mlp.gate", 0, 3), ("attn.v", 1, 2)])
with ctl.ablate(ctl.load_model("toy"), view.selection):
    print("a set of", len(view.selection))"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Scores of the toy on a few questions, and the neurons with the highest."""
    place = tmp_path_factory.mktemp("workbench")
    task = ctl.load_task("miniculture").neuron_split().limit(32)
    scores = ctl.score_neurons(ctl.load_model("toy", device="cpu"), task, progress=False)
    scores.save(place / "scores.safetensors")
    ctl.NeuronSet(scores.top(300)).save(place / "neurons.parquet")
    return place


def notebook(*cells: str) -> Any:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return made


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Jupyter's own folders, apart from the user's; no news, no updates."""
    home = tmp_path_factory.mktemp("jupyter")
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    names = (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "IPYTHONDIR",
        "JUPYTERLAB_WORKSPACES_DIR",
    )
    return {
        **os.environ,
        **{name: str(home / name.lower()) for name in names},
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def server(folder, environment):
    """The address of a JupyterLab that serves the folder on this machine alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        f"--port={port}",
        "--port-retries=0",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        "--IdentityProvider.token=",
        "--ServerApp.password=",
        f"--ServerApp.root_dir={folder}",
        "--LabApp.extension_manager=readonly",
    ]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
        )
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, (folder / "server.log").read_text()[
                    -2000:
                ]
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def run_cell(page: Any, number: int, expect: Any) -> Any:
    """Runs a cell and returns its output area. A kernel that is not connected yet swallows the keys: then
    again."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(number)
    prompt = cell.locator(".jp-InputArea-prompt")
    for attempt in range(10):
        cell.locator(".jp-InputArea-editor").click()
        page.keyboard.press("Control+Enter")
        try:
            expect(prompt).to_have_text(re.compile(r"\[(\*|\d+)\]"), timeout=10_000)
            break
        except AssertionError:
            assert attempt < 9, "the cell was not run"
    expect(prompt).to_have_text(re.compile(r"\[\d+\]"), timeout=LONG)
    return cell.locator(".jp-OutputArea")


def click_cell(page: Any, layer: int, neuron: int, card: Any, expect: Any) -> None:
    """Points at a cell of the first panel, as a person does: clicks when the hover label is there, again
    where the figure moved meanwhile."""
    from playwright.sync_api import TimeoutError as TooLong

    for attempt in range(12):
        x, y = page.evaluate(
            """([x, y]) => { const plot = document.querySelector('.js-plotly-plot'), { xaxis, yaxis } = plot._fullLayout;
                const box = plot.getBoundingClientRect();
                return [box.x + xaxis._offset + xaxis.l2p(x), box.y + yaxis._offset + yaxis.l2p(y)]; }""",
            [neuron, layer],
        )
        page.mouse.move(x - 3, y - 3)
        page.mouse.move(x, y)
        try:
            page.wait_for_selector(".js-plotly-plot .hoverlayer .hovertext", timeout=5_000)
            page.mouse.click(x, y)
            expect(card).to_be_visible(timeout=20_000)
            return
        except (TooLong, AssertionError):
            assert attempt < 11, "no click on the heatmap shows a card"


def state(page: Any, number: int, expect: Any) -> list[Any]:
    """What the view's traits hold: the notebook prints them."""
    output = run_cell(page, number, expect)
    expect(output).to_contain_text("STATE", timeout=LONG)
    return json.loads(output.inner_text().split("STATE", 1)[1])


def test_workbench_in_jupyter(server, folder, page, tmp_path):
    from playwright.sync_api import expect

    nbformat.write(notebook(SHOW, STATE, SET), folder / "view.ipynb")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.set_default_timeout(LONG)
    expect.set_options(timeout=LONG)
    page.goto(f"{server}/lab/tree/view.ipynb?reset")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    run_cell(page, 0, expect)

    # The heatmap stands; what is for exported pages alone is hidden.
    page.wait_for_selector(".js-plotly-plot .heatmaplayer image")
    assert (
        page.locator("[class^=culnig-static]").count() == 1
        and not page.locator("[class^=culnig-static]").is_visible()
    )
    expect(page.get_by_label("Country")).to_be_visible()
    expect(page.get_by_text("opening the workbench")).to_have_count(0)

    # A click on the cell of the strongest gate neuron shows its card.
    strongest = ctl.NeuronSet.load(folder / "neurons.parquet").top(300).query("site == 'mlp.gate'").iloc[0]
    layer, neuron = int(strongest["layer"]), int(strongest["neuron"])
    card = page.locator(".culnig h3", has_text=f"mlp.gate, layer {layer}, neuron {neuron}")
    click_cell(page, layer, neuron, card, expect)
    assert page.locator(".culnig .bars span", has_text="South Korea").is_visible()
    expect(page.locator(".culnig .tokens span.peak").first).to_be_visible()
    expect(page.get_by_text("Promoted tokens")).to_be_visible()
    page.screenshot(path=tmp_path / "card.png")

    # The map is left, the card and the bench are right; together they fit a screen.
    box = lambda css: page.locator(css).first.bounding_box()  # noqa: E731
    plot, shown, bench = box(".culnig-map .js-plotly-plot"), box(".culnig-card"), box(".culnig-answered")
    assert plot["x"] + plot["width"] <= shown["x"] and shown["y"] + shown["height"] <= bench["y"] + 1
    whole = page.locator(".culnig-map").locator("xpath=../..").bounding_box()
    assert whole["height"] <= 800 and shown["height"] >= 200

    # A question is typed and asked; suppressing asks it again.
    page.get_by_placeholder("A question, and its options").fill(
        "Which city is in Spain? Choose one.\nA. Lyon\nB. Busan\nC. Seville\nD. Tehran"
    )
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_text("P(label)")).to_be_visible()
    page.get_by_role("button", name="suppress", exact=True).click()
    expect(page.get_by_text("after (300 neurons suppressed)").first).to_be_visible()
    selected, shown, operation, before, after = state(page, 1, expect)
    assert (selected, shown, operation) == (300, ["mlp.gate", layer, neuron], "suppress")
    assert len(before) == 4 and max(abs(a - b) for a, b in zip(before, after)) > 1e-3
    for label, p, q in zip("ABCD", before, after):
        row = page.locator(".culnig .bars", has_text="Seville").inner_text()
        assert f"{100 * p:.1f}% → {100 * q:.1f}%" in row, (label, row)
    page.screenshot(path=tmp_path / "suppressed.png")

    # What goes wrong is said in words, in the view.
    page.get_by_label("Labels").fill("A, Wolverhampton-upon-nothing")
    page.get_by_label("Labels").press("Enter")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".culnig-wrong")).to_contain_text("label")
    assert "Traceback" not in page.locator(".jp-Notebook").inner_text()
    page.get_by_label("Labels").fill("")
    page.get_by_label("Labels").press("Enter")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".culnig-wrong")).to_have_count(0)

    # A set made in code appears in the view, and the question is asked with it.
    assert "a set of 2" in run_cell(page, 2, expect).inner_text()
    expect(page.get_by_text("Selection: 2 neurons")).to_be_visible()
    expect(page.get_by_text("after (2 neurons suppressed)").first).to_be_visible()

    # The heatmap answers to the menus.
    page.get_by_label("Country").select_option("Spain")
    expect(page.locator(".culnig-map h4")).to_contain_text("scores of Spain")
    page.get_by_label("Site").select_option("attn.q")
    expect(page.locator(".js-plotly-plot .heatmaplayer image")).to_have_count(1)
    page.screenshot(path=tmp_path / "spain.png")

    # Its width is the cell's, whose columns stand one above the other where it is narrow.
    page.set_viewport_size({"width": 1600, "height": 800})
    wide = plot["width"] + 40
    page.wait_for_function(
        f"document.querySelector('.culnig-map .main-svg').getBoundingClientRect().width > {wide}"
    )
    page.set_viewport_size({"width": 900, "height": 800})
    page.wait_for_function(
        """() => { const [map, card] = ['.culnig-map', '.culnig-card'].map(css => document.querySelector(css));
            const [a, b] = [map, card].map(each => each.getBoundingClientRect());
            return b.top >= a.bottom && map.querySelector('.main-svg').getBoundingClientRect().right <= a.right + 1; }"""
    )

    # In the dark theme every text is light.
    page.get_by_role("menuitem", name="Settings").click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Theme$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("JupyterLab Dark$")).click()
    page.wait_for_function(
        """() => { const bright = colour => colour.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3;
            const texts = '.culnig h3, .culnig h4, .culnig .small, .culnig .tokens span, .culnig .num';
            const map = '.culnig-map .xtick text, .culnig-map .ytick text, .culnig-map .annotation-text';
            return [...document.querySelectorAll(texts)].every(each => bright(getComputedStyle(each).color) > 120)
                && [...document.querySelectorAll(map)].every(each => bright(getComputedStyle(each).fill) > 120); }"""
    )
    page.screenshot(path=tmp_path / "dark.png")


def test_exported_notebook_shows_the_heatmap_without_kernel_and_network(
    folder, environment, browser, tmp_path, monkeypatch
):
    nbclient: Any = pytest.importorskip("nbclient")
    nbconvert: Any = pytest.importorskip("nbconvert")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = notebook(SHOW)
    nbclient.NotebookClient(
        made, timeout=LONG / 1000, resources={"metadata": {"path": str(folder)}}
    ).execute()
    assert len(nbformat.writes(nbformat.from_dict({**made, "metadata": {}}))) < 200_000, (
        "the static part stays small"
    )
    pages = {"with state": made, "without state": nbformat.from_dict({**made, "metadata": {}})}
    for name, exported in pages.items():
        html, _ = nbconvert.HTMLExporter().from_notebook_node(exported)
        path = tmp_path / f"{name}.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": 1280, "height": 1000}, offline=True)
        page = context.new_page()
        page.goto(path.as_uri(), wait_until="domcontentloaded")
        static = page.locator("[class^=culnig-static]")
        assert static.is_visible(), name
        assert static.locator("svg image").count() == 4 and static.locator("tbody tr").count() == 20, name
        size = static.locator("svg").bounding_box()
        assert size is not None and size["width"] > 600 and size["height"] > 150
        page.screenshot(path=tmp_path / f"{name}.png")
        context.close()
