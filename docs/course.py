"""Executes the notebooks of the course: into build/course with live figures, for the site, and into
notebooks/ with a picture in place of each figure, for GitHub.

``python docs/course.py`` takes those that changed since they were last executed, ``python docs/course.py
01_first_neurons`` one of them, whatever it is. It needs ``pip install -e ".[dev]"`` and Chrome or Chromium;
``CULNIG_COURSE_MODEL=toy``, the default here, is the model.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
STORED, LIVE = ROOT / "notebooks", ROOT / "build" / "course"
PLOTLY = "application/vnd.plotly.v1+json"
KEPT = (PLOTLY, "text/html", "image/png", "text/plain")
"""Kinds of output that are kept, those that are shown in their place first."""
EXECUTED = "executed"
"""Key of a notebook's metadata: what the outputs in it were made from."""
WIDTH, COLOURS = 1000, 96
"""Pixels across, and colours, of a picture: a notebook stays small enough to be read on GitHub."""


def source_of(notebook: Any) -> str:
    """A hash of the code: outputs belong to it, and prose may change without a new run."""
    parts = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def execute(notebook: Any) -> Any:
    """A copy with the outputs of one run, from top to bottom, in a kernel of its own.

    Raises `CellExecutionError` at the first cell that fails.
    """
    done = nbformat.from_dict(notebook)
    for cell in done.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(
        done, timeout=3600, kernel_name="python3", resources={"metadata": {"path": STORED}}
    ).execute()
    for cell in done.cells:
        cell.metadata.pop("execution", None)  # when each cell began and ended: other in every run
        if cell.cell_type == "code":
            cell.outputs = list(_kept(cell.outputs))
    done.metadata.pop("widgets", None)
    done.metadata[EXECUTED] = source_of(notebook)
    return done


def _kept(outputs: list[Any]) -> Iterator[Any]:
    """The outputs that a page can show: printed text, figures, tables; no progress bars, no widgets."""
    printed = ""
    for output in outputs:
        if output.output_type == "stream":
            printed += output.text if output.name == "stdout" else ""
        elif output.output_type in ("display_data", "execute_result"):
            data = {kind: output.data[kind] for kind in KEPT if kind in output.data}
            if "application/vnd.jupyter.widget-view+json" not in output.data and data:
                if printed:
                    yield _printed(printed)
                printed = ""
                yield nbformat.v4.new_output(
                    output.output_type,
                    _without_script(data),
                    **({"execution_count": output.execution_count} if "execution_count" in output else {}),
                )
    if printed:
        yield _printed(printed)


def _printed(text: str) -> Any:
    return nbformat.v4.new_output("stream", name="stdout", text=text)


def _without_script(data: dict[str, Any]) -> dict[str, Any]:
    """Plotly's HTML repeats the whole library: its JSON is enough."""
    return {kind: value for kind, value in data.items() if not (kind == "text/html" and PLOTLY in data)}


def still(notebook: Any) -> Any:
    """A copy with a picture in place of each figure."""
    done = nbformat.from_dict(notebook)
    for cell in done.cells:
        for output in cell.get("outputs", ()):
            figure = output.get("data", {}).pop(PLOTLY, None)
            if figure is not None:
                output.data = {"image/png": picture(figure), "text/plain": "a figure"}
    return done


def picture(figure: dict[str, Any]) -> str:
    """A figure as PNG, in base64: few colours, so that it is small."""
    import plotly.graph_objects as go
    from PIL import Image

    drawn = go.Figure({"data": figure["data"], "layout": figure["layout"]}, skip_invalid=True)
    drawn.layout.updatemenus = ()
    image = Image.open(io.BytesIO(drawn.to_image("png", width=WIDTH, scale=1)))
    out = io.BytesIO()
    image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(out, "png", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def write(path: Path, notebook: Any) -> None:
    """Writes a notebook as Jupyter does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = nbformat.writes(notebook) + "\n"
    path.write_text(re.sub(r"/tmp/tmp\w+", "/tmp/course", text), encoding="utf-8")


def main(names: list[str]) -> None:
    """Executes the notebooks named, or those whose outputs are not of their present sources."""
    os.environ.setdefault("CULNIG_COURSE_MODEL", "toy")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for path in sorted(STORED.glob("*.ipynb")):
        notebook, live = nbformat.read(path, as_version=4), LIVE / path.name
        kept = nbformat.read(live, as_version=4) if live.is_file() else {"metadata": {}}
        stale = [found["metadata"].get(EXECUTED) != source_of(notebook) for found in (kept, notebook)]
        if path.stem in names or (not names and any(stale)):
            print(path.stem, flush=True)
            executed = execute(notebook)
            write(live, executed)
            if names or stale[1]:  # pictures differ a little from machine to machine
                write(path, still(executed))


if __name__ == "__main__":
    main(sys.argv[1:])
