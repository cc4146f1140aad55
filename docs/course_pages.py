"""Pages that MkDocs makes from the notebooks of the course, with figures that can be hovered over and zoomed.

Figures come from the notebooks in build/course, which ``python docs/course.py`` executed; a notebook that is
not there, or has changed since, is shown with the pictures that are stored in it. Formulas become MathML,
which browsers draw by themselves. Plotly's script is in the site once, and nothing is fetched.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import plotly.graph_objects as go
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files
from plotly.offline import get_plotlyjs

from culnig_tl.figures.fit import caption_of, fit

ROOT = Path(__file__).parents[1]
STORED, LIVE = ROOT / "notebooks", ROOT / "build" / "course"
PLOTLY = "application/vnd.plotly.v1+json"
WIDE, NARROW = 700, 340
"""Pixels of a figure beside the navigation of a wide window, and on a phone."""
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)
_BADGE = re.compile(r"\[!\[Open In Colab\]\([^)]*\)\]\(([^)]*)\)")
_HEAD = (
    '<link rel="stylesheet" href="../assets/course.css"><script src="../assets/plotly.min.js"></script>'
    '<script defer src="../assets/course.js"></script>'
)
CSS = """
.course-output { overflow-x: auto; margin: 0 0 1.2em; font-size: .64rem; }
.course-output pre { white-space: pre-wrap; padding: .6em .9em; margin: 0;
  border-left: 3px solid var(--md-default-fg-color--lightest); }
.course-output table { border-collapse: collapse; }
.course-output th, .course-output td { padding: .25em .7em; text-align: right; border: 0;
  border-bottom: 1px solid var(--md-default-fg-color--lightest); }
.course-output img { max-width: 100%; }
.md-typeset .course-figure { background: #fff; width: 100%; max-width: none; margin: 0 0 1.2em;
  padding: .4em .3em; border-radius: 3px; text-align: left; }
.md-typeset .course-figure figcaption { max-width: none; margin: 0; padding: 0 .6em;
  font-style: normal; font-size: .68rem; text-align: left; color: #222; }
math[display="block"] { margin: 1em 0; overflow-x: auto; overflow-y: hidden; font-size: 1.1em; }
"""
JS = """
// Draws every figure of a page for its place: laid out anew where the place is narrow.
(function () {
  function draw(place) {
    var shape = place.clientWidth < 520 ? "narrow" : "wide";
    if (place.dataset.shape === shape) { return; }
    place.dataset.shape = shape;
    var figure = JSON.parse(place.querySelector("script[data-shape=" + shape + "]").textContent);
    figure.layout.autosize = true;
    var chart = place.querySelector(".course-chart");
    chart.style.height = figure.layout.height + "px";
    Plotly.react(chart, figure.data, figure.layout, { responsive: true, displaylogo: false })
      .then(function () { place.dataset.drawn = "yes"; });
  }
  function all() { document.querySelectorAll(".course-figure").forEach(draw); }
  all();
  window.addEventListener("resize", all);
})();
"""


def on_config(config: Any) -> Any:
    """The course's pages stand behind the first pages of the navigation."""
    pages: list[Any] = ["course/index.md"]
    pages += [{_title(nbformat.read(path, as_version=4)): f"course/{path.stem}.md"} for path in _notebooks()]
    rest = [entry for entry in config.nav if "teaching.md" not in list(entry.values())]
    config.nav = [rest[0], {"The course": [*pages, {"Teaching with it": "teaching.md"}]}, *rest[1:]]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Adds a page for each notebook, and what all of them need."""
    made: dict[str, str] = {
        "assets/plotly.min.js": get_plotlyjs(),
        "assets/course.js": JS,
        "assets/course.css": CSS,
        "course/index.md": links((STORED / "README.md").read_text(encoding="utf-8")),
    }
    for path in _notebooks():
        notebook, live = nbformat.read(path, as_version=4), LIVE / path.name
        if live.is_file():
            ours, theirs = _code(notebook), _code(nbformat.read(live, as_version=4))
            if [cell.source for cell in ours] == [cell.source for cell in theirs]:
                for mine, executed in zip(ours, theirs):
                    mine.outputs = executed.outputs
        made[f"course/{path.stem}.md"] = page(notebook)
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to notebooks lead to their files on GitHub, and to their pages here."""
    markdown = markdown.replace("](../notebooks/README.md)", "](course/index.md)")
    return re.sub(r"\]\(\.\./notebooks/(\w+)\.ipynb\)", r"](course/\1.md)", markdown)


def _notebooks() -> list[Path]:
    return sorted(STORED.glob("*.ipynb"))


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _title(notebook: Any) -> str:
    return notebook.cells[0].source.splitlines()[0].removeprefix("# ")


def page(notebook: Any) -> str:
    """A notebook as Markdown for MkDocs."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(links(formulas(cell.source)).replace("<details>", '<details markdown="1">'))
            continue
        code = f"```python\n{cell.source}\n```"
        if "preamble" in cell.metadata.get("tags", ()):
            code = f'<details markdown="1"><summary>Preamble</summary>\n\n{code}\n\n</details>'
        parts += [code, *(shown for output in cell.outputs for shown in _shown(output))]
    parts.insert(1, _HEAD)
    return "\n\n".join(parts) + "\n"


def links(text: str) -> str:
    """Links between notebooks and pages as they are on the site; the badge, a picture from elsewhere, becomes
    a link."""
    text = _BADGE.sub(r"[Open in Colab](\1)", text)
    text = re.sub(r"\]\(([\w]+)\.ipynb\)", r"](\1.md)", text)
    return text.replace("](README.md)", "](index.md)").replace("](../docs/", "](../")


def formulas(text: str) -> str:
    """TeX between dollars as MathML; code stays as it is."""
    parts = _CODE.split(text)
    return "".join(part if i % 2 else _FORMULA.sub(_mathml, part) for i, part in enumerate(parts))


def _mathml(found: re.Match[str]) -> str:
    block, inline = found.groups()
    made = convert((block or inline).strip(), display="block" if block else "inline")
    return f"\n\n<div>{made}</div>\n\n" if block else made


def _shown(output: Any) -> Iterator[str]:
    """An output as HTML in one block."""
    if output.output_type == "stream":
        yield _boxed(f"<pre>{html.escape(output.text.rstrip())}</pre>")
    data = output.get("data", {})
    if PLOTLY in data:
        yield _figure(data[PLOTLY])
    elif "image/png" in data:
        yield _boxed(f'<img alt="a figure" src="data:image/png;base64,{data["image/png"].strip()}">')
    elif "text/html" in data:
        content = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL)
        yield _boxed(re.sub(r"\s*\n\s*", " ", content))
    elif "text/plain" in data:
        yield _boxed(f"<pre>{html.escape(data['text/plain'])}</pre>")


def _boxed(content: str) -> str:
    return f'<div class="course-output">{content}</div>'


def _figure(drawn: dict[str, Any]) -> str:
    """A figure in the two shapes that it may take, with its title and small print as a caption."""
    figure = go.Figure({"data": drawn["data"], "layout": drawn["layout"]}, skip_invalid=True)
    shapes = "".join(
        f'<script type="application/json" data-shape="{name}">{_json(fit(figure, width=width, text=text))}'
        "</script>"
        for name, width, text in (("wide", WIDE, 12), ("narrow", NARROW, 10))
    )
    place = hashlib.sha256(shapes.encode()).hexdigest()[:8]
    caption = html.escape(caption_of(figure))
    return (
        f'<figure class="course-figure" id="figure-{place}"><figcaption>{caption}</figcaption>'
        f'<div class="course-chart"></div>{shapes}</figure>'
    )


def _json(figure: go.Figure) -> str:
    """A figure without the width that it was laid out for, so that it fills its place."""
    made = json.loads(figure.to_json())
    made["layout"].pop("width", None)
    return json.dumps(made, separators=(",", ":")).replace("<", "\\u003c")
