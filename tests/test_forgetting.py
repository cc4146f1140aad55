"""Forgetting: what is measured before and after, and how it is put together."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from culnig_tl import NeuronSet, figures, load_task
from culnig_tl.data.results import COLUMNS, EvaluationResult
from culnig_tl.errors import FineTuningError, ScoreError, TaskError
from culnig_tl.figures import forgetting_marks
from culnig_tl.finetuning import (
    TOY_FORGETTING,
    FineTuned,
    Forgetting,
    ForgettingConfig,
    TrainingConfig,
    measure_forgetting,
    measuring,
)
from culnig_tl.finetuning.modules import Module, ModuleGroup
from culnig_tl.method.form import FormChoice


def result(right: dict[str, list[int]]) -> EvaluationResult:
    """Answers by hand: task -> right or wrong, two questions per cluster."""
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
            np.nan,
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
        "top": {
            0: {"culture": [0, 0, 1, 1], "sense": [1, 1, 0, 0], "taught": [1] * 4},
            1: {"culture": [0, 0, 0, 1], "sense": [1] * 4, "taught": [1] * 4},
        },
        "matched": {
            0: {"culture": [1, 1, 1, 1], "sense": [1, 0, 0, 0], "taught": [1] * 4},
            1: {"culture": [1, 1, 1, 0], "sense": [1, 1, 0, 0], "taught": [0] * 4},
        },
    }
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


def test_changes_are_in_points(found):
    change = found.changes().set_index(["group", "seed", "task"])["change"]
    assert (change["top", 0, "culture"], change["top", 1, "culture"]) == (-50, -75)
    assert (change["matched", 1, "taught"], change["top", 1, "sense"]) == (-25, 50)


def test_p_changes_with_the_answers(found):
    """P(answer) is 0.75 where it is right, else 0.25."""
    changes = found.changes().set_index(["group", "seed", "task"])
    assert changes.loc[("top", 0, "culture"), "p_change"] == pytest.approx(-25)


def test_changes_say_what_was_trained_and_what_is_culture(found):
    changes = found.changes()
    assert set(changes["task"][changes["trained"]]) == {"taught"}
    assert set(changes["task"][changes["culture"]]) == {"culture"}


def test_the_summary_has_the_spread_over_seeds(found):
    summary = found.summary().set_index(["group", "asked"])
    top = summary.loc[("top", "culture")]
    assert (top["change"], top["min"], top["max"], top["seeds"]) == (-62.5, -75, -50, 2)
    assert top["std"] == pytest.approx(np.std([-50, -75], ddof=1))
    assert summary.loc[("matched", "without culture"), "change"] == -12.5


def test_the_table_has_means_over_seeds(found):
    frame = found.table().frame.set_index("setting")
    assert frame.loc["top (mean of 2)", "culture"] == 37.5 and frame.loc["before", "culture"] == 100


def test_top_against_matched(found):
    drop = found.against("culture")
    assert (drop.base, drop.drop, drop.random_mean, drop.excess) == (100, 62.5, 12.5, 50)
    assert drop.excess_low <= 50 <= drop.excess_high and drop.random_sets == 2
    assert found.against("culture", group="matched", rival="top").excess == -50


@pytest.mark.parametrize(
    ("task", "rival", "message"),
    [("culture", "bottom", "no modules 'bottom'"), ("other", "matched", "'other' was not asked")],
)
def test_only_what_was_measured_is_compared(task, rival, message, found):
    with pytest.raises(FineTuningError, match=message):
        found.against(task, rival=rival)


def test_the_sentence_has_every_group_and_the_comparison(found):
    said, drop = found.sentence(), found.against("culture")
    assert "Points after training on taught, mean of 2 seeds" in said
    assert "−62.5 (−75.0 to −50.0) on culture" in said
    costs_more = drop.excess_low > 0
    assert ("On culture training top costs 50.0 points more" in said) == costs_more
    assert ("On culture it is open whether" in said and "(−50.0 points" in said) == (not costs_more)


def test_the_jaccard_of_the_neurons_before_and_after(found):
    jaccard = found.overlap().set_index(["group", "seed"])["jaccard"]
    assert (jaccard["top", 0], jaccard["top", 1], jaccard["matched", 0]) == (pytest.approx(2 / 6), 0.5, 1)
    assert found.overlap()["stayed"][0] == 0.5


def test_the_share_of_neurons_in_the_trained_modules(found):
    """Neurons 0 and 2 of four are in layer 0, whose MLP is top."""
    table = found.overlap().set_index(["group", "seed"])
    assert table.loc[("top", 0), "in_trained_before"] == 0.5
    assert (table.loc[("top", 0), "in_trained_after"], table.loc[("top", 1), "in_trained_after"]) == (0.75, 0)


def test_every_table_has_a_name(found):
    assert list(found.tables()) == ["accuracy", "changes", "summary", "overlap"]


# ---------------------------------------------------------------------------------------------------- figures


def test_a_mark_per_seed_and_a_line_at_the_mean(found):
    figure = figures.plot(found)
    marks = {trace.name: trace for trace in figure.data if trace.mode == "markers"}
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert list(marks) == ["top", "matched"] and len(lines) == 2
    assert [y for x, y in zip(marks["top"].x, marks["top"].y) if round(x) == 1] == [-50, -75]
    assert lines[0].y[3] == lines[0].y[4] == -62.5 and lines[0].y[5] is None
    assert "seed 1, culture<br>100.0% to 25.0% (−75.0 points)" in "".join(marks["top"].hovertext)


def test_the_trained_task_comes_first_in_the_figure(found):
    ticks = [tick.split("<br>") for tick in figures.plot(found).layout.xaxis.ticktext]
    assert ticks == [["taught", "trained on"], ["culture", "culture"], ["sense", "without culture"]]


def test_every_figure_has_a_name(found):
    assert list(figures.plots(found)) == ["forgetting", "accuracy", "layers"]


@pytest.mark.parametrize(
    ("drop", "rows", "message"), [("change", slice(None), "'change'"), ([], slice(0), "no changes")]
)
def test_changes_that_cannot_be_drawn(drop, rows, message, found):
    with pytest.raises(ScoreError, match=message):
        forgetting_marks(found.changes().drop(columns=drop)[rows])


# ------------------------------------------------------------------------------- everything, on a small model


@pytest.fixture(scope="module")
def config(checkpoints, tmp_path_factory) -> ForgettingConfig:
    """A small model and a user's own task: rows to train on and rows to test with."""
    rows = [
        {
            "question": f"Which comes after {i}?",
            "options": [str(i + 1), str(i - 1), str(i + 5)],
            "answer": str(i + 1),
            "country": None,
            "split": "neuron" if i < 30 else "test",
        }
        for i in range(20, 36)
    ]
    path = tmp_path_factory.mktemp("taught") / "taught.jsonl"
    pd.DataFrame(rows).to_json(path, orient="records", lines=True)
    return ForgettingConfig(
        model=str(checkpoints("llama")),
        task=str(path),
        tasks=("miniculture", "minicommonsense"),
        reading="minireading",
        modules=("top", "matched"),
        share=0.05,
        seeds=(0, 1),
        training=TrainingConfig(learning_rate=1e-3, device="cpu"),
        limit=12,
    )


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    return folder, measure_forgetting(config, folder=folder, progress=False)


NAMES = [f"{group}-{seed}" for group in ("top", "matched") for seed in (0, 1)]


def test_a_model_per_group_and_seed_is_written(run):
    assert sorted(path.name for path in (run[0] / "models").iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("kind", ["results", "neurons"])
def test_answers_and_neurons_of_every_model_are_written(kind, run):
    assert {path.stem for path in (run[0] / kind).iterdir()} == {"before", *NAMES}


def test_changes_are_those_of_the_stored_answers(run):
    folder, _ = run
    changes = pd.read_csv(folder / "changes.csv")
    assert len(changes) == 4 * 3 and set(changes["task"]) == {"miniculture", "minicommonsense", "taught"}
    accuracy = {
        name: EvaluationResult.load(folder / "results" / f"{name}.parquet").accuracy()["accuracy"]
        for name in ("before", *NAMES)
    }
    for row in changes.itertuples():
        after = accuracy[f"{row.group}-{row.seed}"][row.task]
        assert row.change == pytest.approx(after - accuracy["before"][row.task])


def test_overlaps_are_those_of_the_stored_neurons(run):
    folder, _ = run
    overlap = pd.read_csv(folder / "overlap.csv").set_index(["group", "seed"])
    before, one = (NeuronSet.load(folder / "neurons" / f"{name}.parquet") for name in ("before", "top-1"))
    assert overlap.loc[("top", 1), "jaccard"] == pytest.approx(before.jaccard(one))


def test_the_freeze_list_names_the_top_modules(run):
    folder, _ = run
    freeze = json.loads((folder / "freeze-list.json").read_text())
    assert {key for key in freeze if freeze[key]} == {"parameters", "exclude_modules", "target_modules"}
    parts = [name.split(".") for name in freeze["parameters"]]
    top = {f"{'mlp' if part[3] == 'mlp' else 'attn'}.{part[2]}" for part in parts}
    assert top == set(FineTuned.load(folder / "models" / "top-0").record["modules"])


@pytest.mark.parametrize("name", ["forgetting", "accuracy", "layers"])
def test_figures_are_written(name, run):
    assert "plotly" in (run[0] / "figures" / f"{name}.html").read_text(encoding="utf-8").lower()


def test_resuming_makes_nothing_that_is_there(run, config):
    folder, _ = run
    (folder / "results" / "top-1.parquet").unlink()
    files = [path for kind in ("models", "results", "neurons") for path in (folder / kind).rglob("*.*")]
    stamps = {path: path.stat().st_mtime_ns for path in files}
    measure_forgetting(config, folder=folder, resume=True, progress=False)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert (folder / "results" / "top-1.parquet").is_file()


def test_a_finished_folder_is_not_overwritten_by_chance(run, config):
    with pytest.raises(FineTuningError, match="already holds a fine-tuning"):
        measure_forgetting(config, folder=run[0], progress=False)


def test_a_folder_does_not_resume_with_another_configuration(run, config):
    with pytest.raises(FineTuningError, match="with share = 0.05, not 0.06"):
        measure_forgetting(replace(config, share=0.06), folder=run[0], resume=True, progress=False)


def test_neurons_can_be_given_and_modules_named(run, config, tmp_path):
    given = NeuronSet.load(run[0] / "neurons" / "before.parquet")
    lora = replace(config.training, lora=True)
    config = replace(config, modules=("mlp.2", "attn.0"), seeds=(3,), training=lora)
    found = measure_forgetting(config, folder=tmp_path / "out", neurons=given, progress=False)
    assert not (tmp_path / "out" / "neurons" / "before.parquet").exists()
    record = found.models["chosen"][3].record
    assert record["modules"] == ["attn.0", "mlp.2"] and record["config"]["lora"]


def test_a_form_left_open_is_tried_once_and_everything_is_of_it(run, config, tmp_path, monkeypatch):
    given = NeuronSet.load(run[0] / "neurons" / "before.parquet")
    tried = []

    def choose(model, task, *, cloze, **options) -> FormChoice:
        assert task.form == "letters" and cloze(task).normalise == "sum"
        tried.append(task.name)
        return FormChoice("cloze", "it was said", {"letters": 0.0, "cloze": 1.0}, len(task))

    monkeypatch.setattr(measuring, "choose_form", choose)
    config = replace(config, form="auto", normalise="sum", modules=("mlp.2",), seeds=(3,), limit=6)
    how = {"folder": tmp_path / "out", "neurons": given, "progress": False}
    found = measure_forgetting(config, **how)
    assert found.models["chosen"][3].record["form"] == "cloze"
    for result in (found.before, found.after["chosen"][3]):
        assert set(result.metadata["form"].values()) == {"cloze"}
        assert set(result.metadata["normalise"].values()) == {"sum"}
    assert found.general_after["chosen"][3].provenance.form == "cloze"
    record = json.loads((tmp_path / "out" / measuring.RECORD).read_text())
    assert record["form"] == "auto" and record["form_chosen"]["why"] == "it was said"
    again = measure_forgetting(config, **how, resume=True)
    assert tried == ["miniculture"] and again.changes().equals(found.changes())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"share": 0.99}, FineTuningError, "cannot be reached"),
        ({"modules": ("mlp.9",)}, FineTuningError, "no module 'mlp.9'"),
        ({"modules": ()}, FineTuningError, "no modules are named"),
        ({"seeds": ()}, FineTuningError, "at least one"),
        ({"tasks": ("minicommonsense",)}, FineTuningError, "none of the tasks minicommonsense"),
        ({"task": "minianswers"}, TaskError, "no rows to train on"),
        ({"task": "nothing"}, TaskError, "unknown"),
    ],
)
def test_bad_input_is_reported_before_anything_is_made(changes, error, message, config, tmp_path):
    with pytest.raises(error, match=message):
        measure_forgetting(replace(config, **changes), folder=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(config, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FineTuningError, match="other things"):
        measure_forgetting(config, folder=tmp_path / "file", progress=False)


@pytest.mark.slow
def test_the_toy_learns_what_it_is_taught(tmp_path):
    """No claim on culture: what training costs it is reported as it comes out."""
    training = replace(TOY_FORGETTING.training, device="cpu")
    config = replace(TOY_FORGETTING, modules=("top", "bottom"), seeds=(0,), limit=200, training=training)
    found = measure_forgetting(config, folder=tmp_path / "toy", progress=False)
    learned = found.changes().query("trained")
    assert (learned["after"] > 85).all() and (learned["after"] >= learned["before"]).all()
    assert found.overlap()["jaccard"].between(0, 1).all()
    assert set(found.culture) == {*TOY_FORGETTING.tasks, "minisynonyms"} and found.culture["miniculture"]


def test_the_toy_has_enough_to_test_what_it_is_taught():
    assert len(load_task("minisynonyms", split="test")) >= 200


def test_the_defaults_are_the_papers():
    training = TrainingConfig()
    assert (training.learning_rate, training.epochs) == (3e-5, 1)
    assert (training.batch_size, training.accumulation) == (4, 4)
    assert (training.lora_r, training.lora_alpha, ForgettingConfig().share) == (32, 64, 0.10)
