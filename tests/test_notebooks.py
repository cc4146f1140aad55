"""The course: what every notebook has, and that each runs from top to bottom on the toy, its stubs failing
their checks and its solutions passing them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
import torch
import transformers

from . import families
from .helpers import docs_module

ROOT = Path(__file__).resolve().parents[1]
FOLDER, MIRROR = ROOT / "notebooks", ROOT.parent / "shared" / "data" / "hub"
NOTEBOOKS = (
    "01_first_neurons",
    "01b_one_neuron",
    "02_hook_points",
    "03_culture_general",
    "04_culture_specific",
    "05_finetuning",
    "06_your_model_your_questions",
)
QUICK = NOTEBOOKS[:2]
"""Run by `make test`; `make test-all` runs the others too."""
BYTES = 500_000
"""Of a notebook with its pictures at most."""
NETWORK = re.compile(r"requests|urllib|https?://|!wget|!curl|hf_hub_download|snapshot_download")
CALL = re.compile(r"^(ex\d)\((.*)\)$", re.MULTILINE)
SOLUTION = re.compile(r"<summary>Solution</summary>.*?```python\n(.*?)```", re.DOTALL)


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(name: str) -> list[str]:
    return [cell.source for cell in read(name).cells if cell.cell_type == "code"]


def text(name: str) -> str:
    return "\n\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")


@pytest.fixture(scope="module")
def course():
    return docs_module("course")


def test_the_course_is_complete():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    places = [table.find(f"({name}.ipynb)") for name in NOTEBOOKS]
    assert places == sorted(places) and places[0] > 0


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_stored_with_the_outputs_of_its_cells(name, course):
    """Printed text, tables and pictures, so that GitHub shows them; no script, and nothing of an older
    version."""
    notebook = read(name)
    nbformat.validate(notebook)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < BYTES
    assert notebook.metadata.get("executed") == course.source_of(notebook), "run `make course` after a change"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds <= {"image/png", "text/html", "text/plain"} and "image/png" in kinds
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_starts_as_every_other(name):
    """Title, badge, objectives, and which model it takes; one folded cell for all that is no lesson; then the
    model."""
    head, preamble, first = read(name).cells[:3]
    assert head.cell_type == "markdown" and head.source.startswith("# ")
    assert (
        f"https://colab.research.google.com/github/culnig-tl/culnig_tl/blob/main/notebooks/{name}.ipynb"
        in head.source
    )
    objectives = head.source.partition("**You will be able to**")[2]
    assert len(re.findall(r"^- ", objectives, flags=re.MULTILINE)) >= 3
    assert "**Which model:**" in head.source and "(README.md)" in head.source
    assert preamble.metadata["jupyter"]["source_hidden"] and "preamble" in preamble.metadata["tags"]
    assert "    %pip install -q culnig-tl" in preamble.source.splitlines()
    assert first.source.startswith(("lesson = start(", "# Ask one"))
    assert sum("start(" in source for source in code(name)) == 1
    printed = "".join(output.get("text", "") for output in first.outputs)
    assert "This notebook uses" in printed


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_asks_before_it_tells(name):
    """Three exercises at least, none of them in the last third alone, each with difficulty, minutes, stub,
    hint and solution; two predictions at least, each compared with what is then measured."""
    said, cells = text(name), read(name).cells
    exercises = re.findall(r"^\*\*Exercise (\d)\*\* · [●○]{3} · \d+ minutes?\b", said, flags=re.MULTILINE)
    assert len(exercises) >= 3 and exercises == sorted(exercises)
    assert len(re.findall("<summary>Hint</summary>", said)) == len(exercises) == len(SOLUTION.findall(said))
    calls = [(at, call) for at, cell in enumerate(cells) for call in CALL.findall(cell.source)]
    assert [number[2:] for _, (number, _) in calls] == exercises
    assert calls[0][0] < len(cells) / 2
    for at, (_, argument) in calls:
        assert re.search(rf"^{argument} = None", cells[at].source, flags=re.MULTILINE), "the stub says None"
    predictions = re.findall(r"^(guess\w*) = predict\(.*None", "\n".join(code(name)), flags=re.MULTILINE)
    compared = re.findall(r"^\s*guess\w*\.compare\(", "\n".join(code(name)), flags=re.MULTILINE)
    assert len(predictions) == len(compared) >= 2


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_written_for_a_person(name):
    notebook = read(name)
    for cell in notebook.cells:
        limit = 60 if "preamble" in cell.metadata.get("tags", ()) else 45
        assert len(cell.source.splitlines()) <= limit, f"{cell.id}: a wall of {cell.cell_type}"
    claims = re.findall(r"^\s*(?:assert|lesson\.claim\()", "\n".join(code(name)), flags=re.MULTILINE)
    assert len(claims) >= 2, "what the text says is checked by cells"
    for source in code(name):
        assert not NETWORK.search(source), "only the model and its questions may come from the network"
        assert "pip" not in source or "find_spec" in source


def test_the_first_has_ten_cells_and_opens_a_neuron():
    assert len(read(NOTEBOOKS[0]).cells) == 10
    assert "neuron_card(" in code(NOTEBOOKS[0])[-1]


def test_transformer_lens_is_taught_as_it_is():
    sources = "\n".join(code("02_hook_points"))
    assert {"run_with_hooks(", "run_with_cache(", "fwd_hooks=", "bwd_hooks="} <= set(
        re.findall(r"run_with_\w+\(|\wwd_hooks=", sources)
    )
    assert not re.search(r"model\.\w+ = |setattr|monkeypatch|requires_grad_\(True\)", sources)


def solved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with each solution in a cell behind its stub, followed by the stub's check."""
    solutions = iter(
        SOLUTION.findall("\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown"))
    )
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code":
            for number, argument in CALL.findall(cell.source):
                lines = (f"assert not {number}.solved", next(solutions), f"{number}({argument})")
                answer = "\n".join((*lines, f"assert {number}.solved"))
                cells.append(nbformat.v4.new_code_cell(answer, metadata={"tags": ["solution"]}))
    notebook.cells = cells
    return notebook


def environment(monkeypatch: pytest.MonkeyPatch, model: str = "toy") -> None:
    """One thread, this checkout, a model that is not asked of the network."""
    monkeypatch.setenv("CULNIG_COURSE_MODEL", model)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NOTEBOOKS]
)
def test_its_stubs_fail_and_its_solutions_pass(name, course, monkeypatch):
    environment(monkeypatch)
    cells = course.execute(solved(read(name))).cells
    ran = [cell for cell in cells if cell.cell_type == "code"]
    assert any(course.PLOTLY in output.get("data", {}) for cell in ran for output in cell.outputs), (
        "no figure"
    )
    for kind, said in ((True, "right."), (False, "still to do.")):
        printed = "".join(
            output.get("text", "")
            for cell in ran
            if ("solution" in cell.metadata.get("tags", ())) == kind
            for output in cell.outputs
        )
        found = re.findall(r"^Exercise \d: (.*)$", printed, flags=re.MULTILINE)
        assert len(found) >= 3 and set(found) == {said}, (kind, found)


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR.is_dir(), reason="no ../shared/data beside the checkout")
def test_another_model_takes_its_place(tmp_path, course, monkeypatch):
    """A random Qwen3 in a folder, and the data sets of large models; its claims about the toy are not made
    then."""
    torch.manual_seed(0)
    shape = {
        "hidden_size": 48,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
    }
    config = transformers.Qwen3Config(
        **{**families.COMMON, "max_position_embeddings": 4096}, **shape, tie_word_embeddings=False
    )
    transformers.Qwen3ForCausalLM(config).save_pretrained(tmp_path / "model")
    families.tokenizer(chat=True).save_pretrained(tmp_path / "model")
    notebook = read(NOTEBOOKS[0])
    for cell in notebook.cells:  # a few questions will do
        cell.source = re.sub(r"real=\d+", "real=32", cell.source)
    environment(monkeypatch, str(tmp_path / "model"))
    monkeypatch.setenv("CULNIG_DATA_DIR", str(MIRROR))
    printed = str(course.execute(notebook).cells[2].outputs)
    assert "blend, countryrc, commonsenseqa, answered in words (cloze)" in printed
