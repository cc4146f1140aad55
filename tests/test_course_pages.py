"""The course on the site: a page for each notebook, with live figures, formulas and folded cells, and nothing
fetched."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import plotly.graph_objects as go
import pytest

from .helpers import docs_module

ROOT = Path(__file__).parents[1]
pytest.importorskip("mkdocs", reason="the site needs mkdocs: pip install -e '.[docs]'")
pytest.importorskip("latex2mathml", reason="the site needs latex2mathml: pip install -e '.[docs]'")


@pytest.fixture(scope="module")
def pages():
    return docs_module("course_pages")


@pytest.fixture()
def notebook(pages):
    new = nbformat.v4
    figure = json.loads(
        go.Figure(go.Bar(x=["</script>", "b"], y=[1, 2])).update_layout(title="A <b>bar</b>").to_json()
    )
    outputs = [
        new.new_output("stream", name="stdout", text="a < b\n"),
        new.new_output("display_data", {pages.PLOTLY: figure, "text/plain": "Figure()"}),
        new.new_output("display_data", {"text/html": "<style>td {}</style><table>\n<tr></tr>\n</table>"}),
        new.new_output("display_data", {"image/png": "iVBORw0KGgo="}),
    ]
    formula = "$$s = n \\cdot \\frac{\\partial P}{\\partial n}$$"
    text = f"# Title\n\nA score $s_i$:\n\n{formula}\n\n`a $ b $ c` and [next](02_x.ipynb)"
    folded = new.new_code_cell("import culnig_tl", metadata={"tags": ["preamble"]})
    cells = [new.new_markdown_cell(text), folded, new.new_code_cell("draw()", outputs=outputs)]
    return new.new_notebook(cells=cells)


def test_a_page_shows_text_formulas_tables_and_pictures(pages, notebook):
    page = pages.page(notebook)
    assert page.count("<math") == 2 and 'display="block"' in page and "`a $ b $ c`" in page
    assert "[next](02_x.md)" in page
    assert '<details markdown="1"><summary>Preamble</summary>' in page
    assert "<pre>a &lt; b</pre>" in page and "<style>" not in page and "<table> <tr></tr> </table>" in page
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in page


def test_a_figure_is_there_in_two_shapes_and_its_names_stay_names(pages, notebook):
    page = pages.page(notebook)
    found = re.findall(r'<script type="application/json" data-shape="(\w+)">(.*?)</script>', page)
    assert [shape for shape, _ in found] == ["wide", "narrow"]
    wide, narrow = (json.loads(content) for _, content in found)
    assert "width" not in wide["layout"] and wide["layout"]["height"] > narrow["layout"]["height"]
    assert wide["data"][0]["x"][0] == "</script>"
    assert "<figcaption>A bar.</figcaption>" in page


def test_the_site_gets_a_page_for_every_notebook_and_plotly_once(pages, monkeypatch):
    monkeypatch.setattr(
        pages, "File", SimpleNamespace(generated=lambda config, path, content: (path, content))
    )
    made = dict(pages.on_files([], config=None))
    stems = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {f"course/{stem}.md" for stem in stems} < set(made)
    assert len(made["assets/plotly.min.js"]) > 1_000_000
    for path, content in made.items():
        if path.startswith("course/"):
            assert not re.search(r'(?:src|href)="https?:', content) and "plotly.js v" not in content
            assert not re.search(r"\$[^$\n`]*\\\w+[^$\n]*\$", content), f"{path}: a formula is left"
            assert not re.search(r"\.ipynb\)(?!.*colab)", re.sub(r"\(https://colab[^)]*\)", "", content))


def test_the_course_stands_in_the_navigation_with_the_teachers_page(pages):
    nav = [{"Getting started": "index.md"}, {"Teaching": "teaching.md"}, {"Limits": "limits.md"}]
    config = pages.on_config(SimpleNamespace(nav=nav))
    assert [next(iter(entry)) for entry in config.nav] == ["Getting started", "The course", "Limits"]
    section = config.nav[1]["The course"]
    assert section[0] == "course/index.md" and section[-1] == {"Teaching with it": "teaching.md"}
    assert {"Your first culture neurons": "course/01_first_neurons.md"} in section


def test_links_to_notebooks_lead_to_their_pages(pages):
    assert pages.on_page_markdown("[a](../notebooks/01_x.ipynb) [b](../notebooks/README.md)") == (
        "[a](course/01_x.md) [b](course/index.md)"
    )
