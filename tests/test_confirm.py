"""Whether other trainings of the embedded model show the same."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from shutil import copytree
from typing import Any

import pytest

from culnig_tl.toy import FOLDER, confirm
from culnig_tl.toy.homes import homes_of
from culnig_tl.toy.train import Config

TASKS = ("miniculture", "minicommonsense", "minireading", "miniparaphrase", "minianswers")


def made(**changes: Any) -> dict[str, Any]:
    """A toy of which everything holds, but for `changes`: task -> excess of its drop."""
    drops = {
        task: {"drop": 1.0, "excess": 1.0, "excess_low": 0.5, "excess_high": 1.5, "rank": 40}
        for task in TASKS
    }
    drops["miniculture"] |= {"drop": 9.0, "excess": 8.0, "rank": 1}
    rival = {task: {"drop": 1.0, "excess": 1.0} for task in TASKS} | {
        "minicommonsense": {"drop": 9.0, "excess": 8.0}
    }
    for task, excess in changes.items():
        drops[task]["excess"] = excess
    countries = {"own": 9.0, "related": 4.0, "unrelated": 3.0, "own / unrelated": 3.0}
    return {
        "p_answer": {"miniculture": 0.85, "minicommonsense": 0.86},
        "neurons": 100,
        "random_sets": 200,
        "drops": drops,
        "rival": rival,
        "in_homes": {"culture": 0.6, "commonsense": 0.4},
        "home": dict.fromkeys(TASKS, 20.0),
        "countries": {
            kind: {"mean": mean, "low": mean - 1, "high": mean + 1} for kind, mean in countries.items()
        },
    }


def test_all_holds_at_the_bars():
    assert all(confirm.findings(made(miniculture=6.0, minicommonsense=2.0)).values())


@pytest.mark.parametrize(
    ("record", "fails"),
    [
        (made(miniculture=5.9), "miniculture 6 beyond random"),
        (made(minicommonsense=2.1), "minicommonsense within 2"),
        (made(minianswers=2.1), "minianswers within 2"),
        (made() | {"p_answer": {"miniculture": 0.85, "minicommonsense": 0.79}}, "margins alike"),
        (made() | {"p_answer": {"miniculture": 0.91, "minicommonsense": 0.9}}, "margins alike"),
        (made() | {"rival": made()["drops"]}, "rival the other way"),
    ],
)
def test_each_bar_can_fail(record, fails):
    assert [name for name, holds in confirm.findings(record).items() if not holds] == [fails]


def test_ranks_and_countries_can_fail():
    record = made()
    record["drops"]["miniculture"]["rank"] = 2
    record["countries"]["own"]["mean"] = 3.5
    failed = [name for name, holds in confirm.findings(record).items() if not holds]
    assert failed == ["and more than every set", "own country 3 x unrelated", "related in between"]


def test_the_table_says_yes_and_no():
    record = made(minicommonsense=2.1)
    column = confirm.table({"seed 0": record})["seed 0"]
    assert column["minicommonsense within 2"] == "no" and column["and more than every set"] == "yes"


@pytest.fixture(scope="module")
def taken(checkpoints, tmp_path_factory):
    """A small model taken through: (its folder, where the records are, its record, how to do that again)."""
    folder = tmp_path_factory.mktemp("confirmed")
    model = copytree(checkpoints("llama"), tmp_path_factory.mktemp("trained") / "toy")
    small = replace(confirm.TOY_CONFIG, limit=64, top_mlp=0.2, top_attn=0.1, top_specific=0.2, random_sets=1)
    (model / "training.json").write_text(json.dumps({"config": {"seed": 7}}))

    def again() -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(confirm, "TOY_CONFIG", small)
            patch.setattr(sys, "argv", ["confirm", str(model), "--output", str(folder), "--random-sets", "2"])
            printed = StringIO()
            with redirect_stdout(printed):
                confirm.main()
        return printed.getvalue()

    return model, folder / f"{model.name}.json", again(), again


def test_its_record_holds_all_that_is_asked(taken):
    effect = json.loads(taken[1].read_text())["effect"]
    assert effect["random_sets"] == 2 and set(effect["drops"]) == set(effect["home"]) == set(TASKS)
    assert effect["countries"].keys() >= {"own", "related", "unrelated"}


def test_it_says_whose_neurons_were_found(taken):
    shares = json.loads(taken[1].read_text())["effect"]["in_homes"]
    assert shares.keys() == homes_of(taken[0]).keys() and sum(shares.values()) == pytest.approx(1, abs=0.01)


def test_a_column_is_named_for_model_and_seed(taken):
    assert f"{taken[0].name} (seed 7)" in taken[2]


def test_a_run_resumes_to_the_same_record(taken):
    first = taken[1].read_text()
    taken[3]()
    assert taken[1].read_text() == first


@pytest.mark.parametrize(
    ("models", "says"), [(["here"], "no training.json"), (["a/here", "b/here"], "have one name")]
)
def test_folders_that_cannot_be_taken_are_refused_at_once(models, says, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["confirm", *(str(tmp_path / model) for model in models), "--output", str(tmp_path)]
    )
    with pytest.raises(SystemExit):
        confirm.main()
    assert says in capsys.readouterr().err


def test_what_is_said_of_the_shipped_toy_was_measured():
    record = json.loads((FOLDER.parent / "trainings" / "seed-50.json").read_text())
    assert record["training"] == json.loads((FOLDER / "training.json").read_text())
    assert record["effect"]["random_sets"] == confirm.RANDOM_SETS
    assert [name for name, holds in confirm.findings(record["effect"]).items() if not holds] == [
        "related in between"
    ], "as the card says"


@pytest.mark.parametrize("path", sorted((FOLDER.parent / "trainings").iterdir()), ids=lambda path: path.stem)
def test_every_seed_has_its_curve_and_learned(path):
    training = json.loads(path.read_text())["training"]
    recipe = Config(seed=int(path.stem.removeprefix("seed-")), threads=training["config"]["threads"])
    assert training["config"] == vars(recipe)
    assert training["curve"][-1]["step"] == training["steps"] and training["minutes"] < 60
    assert all(measured["accuracy"] > 0.9 for measured in training["final"].values())
