"""The command line: what it prints, and what it says of bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from culnig_tl.cli import app
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.data.scores import NeuronScores
from culnig_tl.errors import StudyError


def command(*words: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "culnig_tl", *words], capture_output=True, text=True, timeout=120, **kwargs
    )


def ok(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_help_loads_neither_torch_nor_plotly():
    code = "import sys; import culnig_tl, culnig_tl.cli; print([m for m in ('torch', 'transformer_lens', 'plotly', 'pandas') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "--model", "/no/such/folder"], "no such folder: /no/such/folder"),
        (["run", "--model", "toy", "--tasks", "blund"], "blend"),
        (["run", "--batch-size", "many"], "batch_size"),
        (["run", "--limit", "0"], "limit"),
        (["run", "--dtype", "float16"], "float16 is refused"),
        (["run", "--nonsense"], "--nonsense"),
        (
            ["select", "general", "--neuron", "nowhere.safetensors", "-o", "x.parquet"],
            "no such file of scores: nowhere.safetensors",
        ),
        (["select", "special", "--neuron", "x", "-o", "x.parquet"], "general, specific or random"),
        (["evaluate", "--neurons", "nowhere.parquet"], "no such file of neurons: nowhere.parquet"),
        (["report", "nowhere"], "nowhere holds no study"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(words, says, tmp_path):
    if words[0] == "run":
        words = [*words, "--output-dir", str(tmp_path / "out")]
    result = command(*words)
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_score_by_another_method(tmp_path, checkpoints):
    model = [
        "--model",
        str(checkpoints("llama")),
        "--device",
        "cpu",
        "--limit",
        "8",
        "-o",
        str(tmp_path / "atp.safetensors"),
    ]
    assert "8 questions" in ok("score", *model, "--task", "miniculture", "--method", "atp")
    assert NeuronScores.load(tmp_path / "atp.safetensors").metadata["method"] == "atp"
    refused = CliRunner().invoke(app, ["score", *model, "--method", "atp", "--aggregation", "sum"])
    assert isinstance(refused.exception, StudyError) and "leave the rest out" in str(refused.exception)


def test_score_select_evaluate_from_the_shell(checkpoints, tmp_path):
    model = ["--model", str(checkpoints("llama")), "--device", "cpu", "--limit", "16"]
    files = {name: str(tmp_path / f"{name}.safetensors") for name in ("neuron", "control", "reading")}
    assert "16 questions" in ok("score", *model, "--task", "miniculture", "-o", files["neuron"])
    ok("score", *model, "--task", "miniculture", "--control", "-o", files["control"])
    ok("score", *model, "--task", "minireading", "-o", files["reading"])
    scores = NeuronScores.load(files["neuron"])
    assert scores.metadata["task"] == "miniculture" and sum(scores.questions) == 16
    assert NeuronScores.load(files["control"]).metadata["clamped"] is True

    given = [word for name, path in files.items() for word in (f"--{name}", path)]
    ok("select", "general", *given, "--top-mlp", "0.1", "-o", str(tmp_path / "general.parquet"))
    ok(
        "select",
        "random",
        "--neuron",
        files["neuron"],
        "--matching",
        str(tmp_path / "general.parquet"),
        "--match",
        "layer",
        "-o",
        str(tmp_path / "random.csv"),
    )
    general, random = NeuronSet.load(tmp_path / "general.parquet"), NeuronSet.load(tmp_path / "random.csv")
    assert general.counts(["site", "layer"]).equals(random.counts(["site", "layer"]))

    printed = ok(
        "evaluate",
        *model,
        "--tasks",
        "miniculture,minianswers",
        "--neurons",
        str(tmp_path / "general.parquet"),
        "-o",
        str(tmp_path / "r.parquet"),
    )
    assert "miniculture" in printed and "minianswers" in printed and (tmp_path / "r.parquet").is_file()


def test_ctrl_c_leaves_130_and_no_half_written_file(checkpoints, tmp_path):
    """The signal arrives while questions are asked."""
    import signal
    import time

    folder = tmp_path / "out"
    words = [
        "run",
        "--model",
        str(checkpoints("llama")),
        "--tasks",
        "miniculture",
        "--reading",
        "minireading",
        "--device",
        "cpu",
        "--batch-size",
        "1",
    ]
    running = subprocess.Popen(
        [sys.executable, "-m", "culnig_tl", *words, "--output-dir", str(folder)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test runner may have it ignored
    )
    deadline = time.time() + 100
    while not (folder / "study.json").exists() and time.time() < deadline:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "Stopped" in said and "Traceback" not in said
    assert {p.name for p in Path(folder).iterdir()} <= {"study.json", "state"}, (
        "the state of the scoring that was begun may stand"
    )
