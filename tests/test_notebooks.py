"""The course: stored without outputs, and executed from top to bottom on the embedded model."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import nbformat
import pytest
import torch
import transformers

from . import families

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
MIRROR = FOLDER.parents[1] / "shared" / "data" / "hub"
NOTEBOOKS = (
    "01_first_neurons",
    "02_hook_points",
    "03_culture_general",
    "04_culture_specific",
    "05_finetuning",
    "06_your_model_your_questions",
)
QUICK = NOTEBOOKS[:2]
"""Run by `make test`; `make test-all` runs the others too."""
BYTES = 60_000
"""Of a notebook at most: text alone."""
CPU_SECONDS = 120
"""Of a notebook on one thread: under two minutes on two quiet cores, and no clock is looked at on a busy
machine."""
NETWORK = re.compile(r"requests|urllib|https?://|!wget|!curl|hf_hub_download|snapshot_download")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(name: str) -> list[str]:
    return [cell.source for cell in read(name).cells if cell.cell_type == "code"]


def test_the_course_is_complete():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [text.find(name) for name in NOTEBOOKS] == sorted(
        text.find(name) for name in NOTEBOOKS
    ) and NOTEBOOKS[0] in text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_stored_clean(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < BYTES
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, (
                f"{cell.id}: clear the outputs before you commit"
            )
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_starts_as_every_other(name):
    """Title, badge and what a real model needs; an install cell that asks first; the model's name on one
    line."""
    head, install, setup = read(name).cells[:3]
    assert head.cell_type == "markdown" and head.source.startswith("# ")
    assert (
        f"https://colab.research.google.com/github/culnig-tl/culnig_tl/blob/main/notebooks/{name}.ipynb"
        in head.source
    )
    assert "**On a real model:**" in head.source and "GB" in head.source and "hf auth login" in head.source
    assert 'find_spec("culnig_tl") is None' in install.source
    assert [line for line in install.source.splitlines() if "pip install" in line] == [
        "    %pip install -q culnig-tl"
    ]
    assert len(re.findall(r"^MODEL = \"toy\"", setup.source, flags=re.MULTILINE)) == 1
    assert sum(len(re.findall(r"^MODEL =", source, flags=re.MULTILINE)) for source in code(name)) == 1


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_written_for_a_person(name):
    notebook = read(name)
    for cell in notebook.cells:
        assert len(cell.source.splitlines()) <= 30, f"{cell.id}: a wall of {cell.cell_type}"
    claims = sum(
        len(re.findall(r"^\s*(?:assert|claim\()", source, flags=re.MULTILINE)) for source in code(name)
    )
    assert claims >= 3, "what the text says is checked by cells"
    for source in code(name):
        assert not NETWORK.search(source.replace('src="http', "")), (
            "only load_model and load_task may reach for the network"
        )
        assert "pip" not in source or "find_spec" in source


def test_the_first_has_ten_cells():
    assert len(read(NOTEBOOKS[0]).cells) == 10


def test_exercises_have_solutions():
    """The cells of exercises hold None, those of solutions are collapsed."""
    cells = read("02_hook_points").cells
    blanks = [
        re.findall(r"^(\w+) = None", cell.source, flags=re.MULTILINE)
        for cell in cells
        if cell.cell_type == "code"
    ]
    solutions = [cell for cell in cells if cell.source.startswith("# Solution")]
    assert sum(map(len, blanks)) == len(solutions) == 3
    assert all(cell.metadata["jupyter"]["source_hidden"] for cell in solutions)


def execute(path: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """Runs a notebook as `pytest --nbmake` does, on one thread and against this checkout; fails with the
    cell's traceback."""
    from nbmake.nb_run import NotebookRun

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, (str(FOLDER.parent), os.environ.get("PYTHONPATH"))))
    )
    result = NotebookRun(path, default_timeout=1200, kernel="python3").execute()
    if result.error is not None:
        pytest.fail(
            f"cell {result.error.failing_cell_index + 1}: {result.error.summary}\n{result.error.trace}",
            pytrace=False,
        )
    return result.nb


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NOTEBOOKS]
)
def test_it_runs_from_top_to_bottom(name, monkeypatch):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = [cell for cell in execute(FOLDER / f"{name}.ipynb", monkeypatch).cells if cell.cell_type == "code"]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(cell.execution_count for cell in ran)
    assert any(
        "application/vnd.plotly.v1+json" in output.get("data", {}) for cell in ran for output in cell.outputs
    ), "no figure"
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < CPU_SECONDS, f"{spent:.0f} s of CPU time"


@pytest.mark.slow
@pytest.mark.skipif(not MIRROR.is_dir(), reason="no ../shared/data beside the checkout")
@pytest.mark.parametrize("name", QUICK)
def test_one_line_takes_it_to_another_model(name, tmp_path, monkeypatch):
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

    notebook = read(name)
    setup = notebook.cells[2]
    setup.source = setup.source.replace('MODEL = "toy"', f'MODEL = "{tmp_path / "model"}"')
    for cell in notebook.cells:  # a few questions will do
        cell.source = re.sub(r"limit=\d{3}\b", "limit=64", cell.source)
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    monkeypatch.setenv("CULNIG_DATA_DIR", str(MIRROR))
    execute(tmp_path / f"{name}.ipynb", monkeypatch)
