"""torchrun for real: processes of their own, gloo on the CPU. All of it is slow; `test_distributed` has the
quick checks."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from culnig_tl import EvaluationResult, NeuronScores

from .helpers import difference
from .processes import command, ended, torchrun

pytestmark = pytest.mark.slow

MODEL = ["--model", "toy", "--device", "cpu", "--limit", "23", "--batch-size", "5"]
PATIENCE = 300.0


def test_score_and_evaluate_are_those_of_one_process(tmp_path):
    """Five batches among two; `test_distributed` has three processes."""
    score = ["score", *MODEL, "--task", "miniculture", "-o"]
    evaluate = ["evaluate", *MODEL, "--tasks", "miniculture,minicommonsense", "-o"]
    for words, name, once in ((score, "scores", "miniculture"), (evaluate, "answers", "Asked:")):
        assert ended(command(*words, str(tmp_path / f"{name} 1")), PATIENCE)[0] == 0
        code, printed, said = ended(torchrun(2, *words, str(tmp_path / f"{name} 2")), PATIENCE)
        assert code == 0, said
        assert printed.count(once) == 1, "one process prints"
    assert (
        difference(NeuronScores.load(tmp_path / "scores 2"), NeuronScores.load(tmp_path / "scores 1")) < 1e-6
    )
    one, many = (EvaluationResult.load(tmp_path / f"answers {n}") for n in (1, 2))
    assert many.table.equals(one.table), "exactly"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name} {n}" for name in ("scores", "answers") for n in (1, 2)
    }


def test_a_process_that_is_killed_ends_the_run_which_can_go_on(tmp_path):
    words = [
        "run",
        "--model",
        "toy",
        "--limit",
        "40",
        "--random-sets",
        "1",
        "--tasks",
        "miniculture,minicommonsense",
        "--batch-size",
        "1",
    ]
    words += ["--save-every", "0", "--output-dir", str(tmp_path / "study")]
    process = torchrun(2, *words)
    deadline = time.monotonic() + PATIENCE
    while not list((tmp_path / "study").glob("state/score control*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    second = next(
        child for child in psutil.Process(process.pid).children() if child.environ().get("RANK") == "1"
    )
    os.kill(second.pid, signal.SIGKILL)
    code, _, said = ended(process, PATIENCE)
    assert code == 1 and "--resume" in said, said
    assert "exitcode  : -9" in said, "torchrun says which process died"
    assert (tmp_path / "study" / "scores" / "neuron.safetensors").is_file() and list(
        (tmp_path / "study" / "state").iterdir()
    )
    code, printed, said = ended(torchrun(2, *words, "--resume"), PATIENCE)
    assert code == 0 and printed.count("The report:") == 1, said
    assert not (tmp_path / "study" / "state").exists()


def test_an_error_is_said_once_and_other_commands_are_refused(tmp_path):
    code, _, said = ended(
        torchrun(2, "score", "--model", "toy", "--task", "nonsense", "-o", str(tmp_path / "x")), PATIENCE
    )
    assert code == 1 and said.count("Error: task 'nonsense' is unknown") == 1, said
    code, _, said = ended(torchrun(2, "tasks"), PATIENCE)
    assert code == 1 and said.count("torchrun can start run, score, evaluate") == 1, said
