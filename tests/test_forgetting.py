"""Forgetting: what is measured before and after, and how it is put together."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from culnig_tl import NeuronSet, load_task
from culnig_tl.commands.finetune import finetune as command
from culnig_tl.data.results import COLUMNS, EvaluationResult
from culnig_tl.errors import FineTuningError, ScoreError, TaskError
from culnig_tl.figures import forgetting_marks
from culnig_tl.finetuning.finetune import FineTuned, TrainingConfig
from culnig_tl.finetuning.forgetting import TOY_FORGETTING, Forgetting, ForgettingConfig
from culnig_tl.finetuning.measuring import measure_forgetting
from culnig_tl.finetuning.modules import Module, ModuleGroup

APP = typer.Typer()
APP.command()(command)


def result(right: dict[str, list[int]]) -> EvaluationResult:
    """Answers by hand: task -> right or wrong, two questions a cluster."""
    rows = [
        (
            task,
            f"{task}{i}",
            f"{task}{i // 2}",
            None,
            None,
            0,
            "A",
            "A",
            "A",
            0.25 + 0.5 * ok,
            bool(ok),
            bool(ok),
            float("nan"),
        )
        for task, oks in right.items()
        for i, ok in enumerate(oks)
    ]
    return EvaluationResult(pd.DataFrame(rows, columns=list(COLUMNS)), {"model": "m", "neuron_count": 0})


def neurons(*indices: int) -> NeuronSet:
    return NeuronSet.from_indices([("mlp.gate", i % 2, i) for i in indices])


@pytest.fixture
def found() -> Forgetting:
    group = {
        name: ModuleGroup((Module(layer, "mlp", 10, 3),), 100, 2, name)
        for name, layer in (("top", 0), ("matched", 1))
    }
    before = result({"culture": [1, 1, 1, 1], "sense": [1, 1, 0, 0], "taught": [0, 0, 0, 1]})
    after = {
        "top": {0: {"culture": [0, 0, 1, 1], "sense": [1, 1, 0, 0], "taught": [1] * 4}, 1: {"culture": [0, 0, 0, 1], "sense": [1] * 4, "taught": [1] * 4}},
        "matched": {0: {"culture": [1, 1, 1, 1], "sense": [1, 0, 0, 0], "taught": [1] * 4}, 1: {"culture": [1, 1, 1, 0], "sense": [1, 1, 0, 0], "taught": [0] * 4}},
    }  # fmt: skip
    return Forgetting(
        ForgettingConfig(task="taught", seeds=(0, 1)),
        "taught",
        {"culture": True, "sense": False, "taught": False},
        {name: {0: one, 1: one} for name, one in group.items()},
        before,
        {name: {seed: result(rows) for seed, rows in seeds.items()} for name, seeds in after.items()},
        neurons(0, 1, 2, 3),
        {
            "top": {0: neurons(0, 1, 4, 6), 1: neurons(1, 3)},
            "matched": {0: neurons(0, 1, 2, 3), 1: neurons(9)},
        },
        {},
    )


def test_changes_and_their_spread(found):
    changes = found.changes().set_index(["group", "seed", "task"])
    assert (
        changes.loc[("top", 0, "culture"), "change"] == -50
        and changes.loc[("top", 1, "culture"), "change"] == -75
    )
    assert (
        changes.loc[("matched", 1, "taught"), "change"] == -25
        and changes.loc[("top", 1, "sense"), "change"] == 50
    )
    assert changes.loc[("top", 0, "culture"), "p_change"] == pytest.approx(
        -25
    )  # P(answer) is 0.75 where right, else 0.25
    assert changes["trained"].sum() == 4 and changes["culture"].sum() == 4
    summary = found.summary().set_index(["group", "asked"])
    top = summary.loc[("top", "culture")]
    assert (top["change"], top["min"], top["max"], top["seeds"]) == (-62.5, -75, -50, 2) and top[
        "std"
    ] == pytest.approx(np.std([-50, -75], ddof=1))
    assert summary.loc[("matched", "without culture"), "change"] == -12.5
    frame = found.table().frame.set_index("setting")
    assert frame.loc["top (mean of 2)", "culture"] == 37.5 and frame.loc["before", "culture"] == 100


def test_top_against_matched(found):
    drop = found.against("culture")
    assert (drop.base, drop.drop, drop.random_mean, drop.excess) == (100, 62.5, 12.5, 50)
    assert drop.excess_low <= 50 <= drop.excess_high and drop.random_sets == 2
    assert found.against("culture", group="matched", rival="top").excess == -50
    for arguments, message in (
        (("culture", {"rival": "bottom"}), "no modules 'bottom'"),
        (("other", {}), "'other' was not asked"),
    ):
        with pytest.raises(FineTuningError, match=message):
            found.against(arguments[0], **arguments[1])
    said = found.sentence()
    assert (
        "Points after training on taught, mean of 2 seeds" in said
        and "−62.5 (−75.0 to −50.0) on culture" in said
    )
    difference = "training top costs 50.0 points more" if drop.excess_low > 0 else "no difference is seen"
    assert f"On culture {difference}" in said and ("(−50.0 points" in said) == (drop.excess_low <= 0)


def test_where_the_neurons_went(found):
    table = found.overlap().set_index(["group", "seed"])
    assert table.loc[("top", 0), "jaccard"] == pytest.approx(2 / 6) and table.loc[("top", 0), "stayed"] == 0.5
    assert table.loc[("top", 1), "jaccard"] == 0.5 and table.loc[("matched", 0), "jaccard"] == 1
    assert (
        table.loc[("top", 0), "in_trained_before"] == 0.5
    )  # neurons 0 and 2 are in layer 0, whose MLP is top
    assert (
        table.loc[("top", 0), "in_trained_after"] == 0.75 and table.loc[("top", 1), "in_trained_after"] == 0
    )


def test_the_figure_shows_a_mark_a_seed_and_a_line_at_the_mean(found):
    figure = found.figure()
    marks = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert list(marks) == ["top", "matched"] and len(lines) == 2
    ticks = list(figure.layout.xaxis.ticktext)
    assert [tick.split("<br>") for tick in ticks] == [
        ["taught", "trained on"],
        ["culture", "culture"],
        ["sense", "without culture"],
    ]
    at_culture = [y for x, y in zip(marks["top"].x, marks["top"].y) if round(x) == 1]
    assert at_culture == [-50, -75]
    assert lines[0].y[3] == lines[0].y[4] == -62.5 and lines[0].y[5] is None
    assert "seed 1, culture<br>100.0% to 25.0% (-75.0 points)" in "".join(marks["top"].hovertext)
    assert (
        figure.layout.yaxis.title.text == "change in accuracy (points)"
        and "2 seeds" in figure.layout.title.text
    )
    with pytest.raises(ScoreError, match="no column 'change'"):
        forgetting_marks(found.changes().drop(columns="change"))
    with pytest.raises(ScoreError, match="no changes"):
        forgetting_marks(found.changes()[:0])


# ------------------------------------------------------------------------------------------------ the whole of it, small


def call(*arguments) -> str:
    outcome = CliRunner().invoke(APP, [str(a) for a in arguments])
    if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A user's own task: 40 rows to train on, 8 to test."""
    rows = [
        {
            "question": f"Which comes after {i}?", "options": [str(i + 1), str(i - 1), str(i + 5)], "answer": str(i + 1),
            "country": None, "split": "neuron" if i < 30 else "test",
        }
        for i in range(20, 36)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("taught") / "taught.jsonl"
    pd.DataFrame(rows).to_json(path, orient="records", lines=True)
    return path


@pytest.fixture(scope="module")
def arguments(checkpoints, taught):
    return [
        "--model", checkpoints("llama"), "--task", taught, "--tasks", "miniculture,minicommonsense", "--reading", "minireading",
        "--modules", "top,matched", "--share", "0.05", "--seeds", "0,1", "--learning-rate", "1e-3", "--limit", "12", "--device", "cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(arguments, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    return folder, call(*arguments, "--output-dir", folder)


def test_the_command_writes_models_tables_and_figures(run):
    folder, said = run
    names = [f"{group}-{seed}" for group in ("top", "matched") for seed in (0, 1)]
    assert sorted(path.name for path in (folder / "models").iterdir()) == sorted(names)
    for kind in ("results", "neurons"):
        assert {path.stem for path in (folder / kind).iterdir()} == {"before", *names}
    changes = pd.read_csv(folder / "changes.csv")
    assert len(changes) == 4 * 3 and set(changes["task"]) == {"miniculture", "minicommonsense", "taught"}
    for row in changes.itertuples():
        after = (
            EvaluationResult.load(folder / "results" / f"{row.group}-{row.seed}.parquet")
            .accuracy()
            .loc[row.task, "accuracy"]
        )
        before = (
            EvaluationResult.load(folder / "results" / "before.parquet").accuracy().loc[row.task, "accuracy"]
        )
        assert row.change == pytest.approx(after - before)
    overlap = pd.read_csv(folder / "overlap.csv")
    base, one = (NeuronSet.load(folder / "neurons" / f"{name}.parquet") for name in ("before", "top-1"))
    assert overlap.loc[
        (overlap["group"] == "top") & (overlap["seed"] == 1), "jaccard"
    ].item() == pytest.approx(base.jaccard(one))
    freeze = json.loads((folder / "freeze-list.json").read_text())
    assert {key for key in freeze if freeze[key]} == {"parameters", "exclude_modules", "target_modules"}
    top = {name.split(".")[2] + name.split(".")[3] for name in freeze["parameters"]}
    assert top == {
        f"{name.split('.')[1]}{name.split('.')[0].replace('attn', 'self_attn')}"
        for name in FineTuned.load(folder / "models" / "top-0").record["modules"]
    }
    for figure in ("forgetting", "accuracy", "layers"):
        assert "plotly" in (folder / "figures" / f"{figure}.html").read_text(encoding="utf-8").lower()
    assert (
        "optimiser state" in said
        and "top (mean of 2)" in said
        and "Where the culture-general neurons went" in said
    )


def test_going_on_makes_nothing_anew(run, arguments, taught):
    folder, _ = run
    stamps = {
        path: path.stat().st_mtime_ns
        for kind in ("models", "results", "neurons")
        for path in (folder / kind).rglob("*")
        if path.is_file()
    }
    (folder / "results" / "top-1.parquet").unlink()
    call(*arguments, "--output-dir", folder, "--resume")
    again = {path: path.stat().st_mtime_ns for path in stamps}
    assert {path.name for path in stamps if stamps[path] != again[path]} == {"top-1.parquet"}
    with pytest.raises(FineTuningError, match="already holds a fine-tuning"):
        call(*arguments, "--output-dir", folder)
    with pytest.raises(FineTuningError, match="other share"):
        call(*[a if a != "0.05" else "0.06" for a in arguments], "--output-dir", folder, "--resume")


def test_neurons_can_be_given_and_modules_named(run, arguments, checkpoints, tmp_path):
    folder, _ = run
    given = folder / "neurons" / "before.parquet"
    replaced = [a if a != "top,matched" else "mlp.2,attn.0" for a in arguments]
    replaced[replaced.index("0,1")] = "3"
    said = call(*replaced, "--neurons", given, "--output-dir", tmp_path / "out", "--lora")
    assert (
        "chosen: mlp.2, attn.0" in said
        and (tmp_path / "out" / "models" / "chosen-3" / "adapter" / "adapter_config.json").is_file()
    )
    assert not (tmp_path / "out" / "neurons" / "before.parquet").exists()
    record = FineTuned.load(tmp_path / "out" / "models" / "chosen-3").record
    assert record["modules"] == ["attn.0", "mlp.2"] and record["config"]["lora"]


def test_bad_input_is_said_before_anything_is_made(checkpoints, taught, tmp_path):
    base = ForgettingConfig(
        model=str(checkpoints("llama")), task=str(taught), tasks=("miniculture",), reading="minireading"
    )
    cases = [
        ({"share": 0.99}, FineTuningError, "cannot be reached"),
        ({"modules": ("mlp.9",)}, FineTuningError, "no module 'mlp.9'"),
        ({"modules": ()}, FineTuningError, "no modules are named"),
        ({"seeds": ()}, FineTuningError, "one at least"),
        ({"tasks": ("minicommonsense",)}, FineTuningError, "none of the tasks minicommonsense"),
        ({"task": "minianswers"}, TaskError, "no rows to train on"),
        ({"task": "nothing"}, TaskError, "unknown"),
    ]
    for changed, error, message in cases:
        with pytest.raises(error, match=message):
            measure_forgetting(dataclasses.replace(base, **changed), folder=tmp_path / "out", progress=False)
        assert not (tmp_path / "out").exists(), message
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FineTuningError, match="other things"):
        measure_forgetting(base, folder=tmp_path / "file", progress=False)
    with pytest.raises(FineTuningError, match="whole numbers"):
        call("--model", checkpoints("llama"), "--seeds", "a", "--output-dir", tmp_path / "out")


@pytest.mark.slow
def test_the_toy_learns_what_it_is_taught(tmp_path):
    """No claim on culture: what training costs it is reported as it comes out."""
    config = dataclasses.replace(TOY_FORGETTING, modules=("top", "bottom"), seeds=(0,), limit=200)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, device="cpu"))
    found = measure_forgetting(config, folder=tmp_path / "toy", progress=False)
    learned = found.changes().query("trained")
    assert (learned["after"] > 85).all() and (learned["after"] >= learned["before"]).all()
    assert found.overlap()["jaccard"].between(0, 1).all()
    assert set(found.culture) == {*TOY_FORGETTING.tasks, "minisynonyms"} and found.culture["miniculture"]
    assert len(load_task("minisynonyms").test_split()) >= 200


def test_the_defaults_are_the_papers():
    training = TrainingConfig()
    assert (training.learning_rate, training.epochs, training.batch_size, training.accumulation) == (
        3e-5,
        1,
        4,
        4,
    )
    assert (training.lora_r, training.lora_alpha, ForgettingConfig().share) == (32, 64, 0.10)
