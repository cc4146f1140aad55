"""The commands that go on from a study, on a study of a small random checkpoint."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from culnig_tl.errors import StudyError, TaskError
from culnig_tl.method.evaluation import evaluate
from culnig_tl.method.selection import select_random
from culnig_tl.run.pipeline import run_study
from culnig_tl.study.config import GENERAL, RANDOM, StudyConfig
from culnig_tl.study.study import Study

from .helpers import invoked

CONFIG = {
    "tasks": ("miniculture", "minicommonsense"),
    "reading": "minireading",
    "top_mlp": 0.1,
    "top_attn": 0.05,
    "top_specific": 0.1,
    "random_sets": 2,
    "limit": 16,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def study(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "llama"
    run_study(StudyConfig(model=str(checkpoints("llama")), **CONFIG), folder=folder, progress=False)
    return folder


def test_sweep(study, tmp_path):
    said = invoked("sweep", study, "--top", "0.05,0.1", "--output-dir", tmp_path)
    table = pd.read_csv(tmp_path / "sweep.csv")
    assert table["top"].tolist() == [0.05, 0.1] and "miniculture drop" in table.columns and "2 points" in said
    assert "plotly" in (tmp_path / "sweep.html").read_text(encoding="utf-8").lower()
    invoked(
        "sweep",
        study,
        "--count",
        "--country",
        "Iran",
        "--top",
        "0.1,0.2",
        "--z",
        "0,1",
        "--output-dir",
        tmp_path,
    )
    assert len(pd.read_csv(tmp_path / "sweep Iran.csv")) == 4


def test_claim(study, tmp_path):
    said = invoked("claim", study, "--rival", "minicommonsense", "--output-dir", tmp_path)
    table = pd.read_csv(tmp_path / "claim.csv")
    assert set(table["against"]) == {*RANDOM.values(), "rival (minicommonsense)"} and len(table) == 6
    assert "smallest possible p by rank is 1/3" in said
    assert (tmp_path / "table.md").read_text().startswith("| model | setting | neurons | miniculture |")
    assert set(pd.read_csv(tmp_path / "depth.csv")["third"]) == {"shallow", "middle", "deep"}


def test_claim_asks_with_more_random_sets_and_keeps_them(study, tmp_path):
    folder = shutil.copytree(study, tmp_path / "study")
    said = invoked(
        "claim", folder, "--rival", "minicommonsense", "--random-sets", "4", "--output-dir", tmp_path
    )
    assert "smallest possible p by rank is 1/5" in said and f"Against 4 sets: {RANDOM['layer']}" in said
    grown = Study.load(folder)
    assert len(grown.random_settings("layer")) == 4 and len(grown.random_settings("count")) == 2
    fourth = select_random(grown.neurons[GENERAL], grown.scores["neuron"], seed=3, match="layer")
    assert grown.results[f"{RANDOM['layer']} 3"].metadata["neurons"] == fourth.hash


def test_countries(study, tmp_path):
    said = invoked("countries", study, "--output-dir", tmp_path)
    assert "mean rank" in said and "rank1_share" in said
    drops = pd.read_csv(tmp_path / "countries.csv", index_col=0)
    assert {"Iran", "Spain"} <= set(drops.columns) and len(drops) > 3
    assert pd.read_csv(tmp_path / "related.csv")["p"].between(0, 1).all()
    own = pd.read_csv(tmp_path / "own.csv").set_index(["relation", "countries"])["mean"]
    assert own["region", "own"] == pytest.approx(
        np.mean([drops.loc[country, country] for country in drops.index])
    )


def test_parts(study, tmp_path):
    invoked("parts", study, "--output-dir", tmp_path)
    assert pd.read_csv(tmp_path / "parts.csv")["part"].tolist()[:3] == [
        "whole method",
        "no control",
        "no CountryRC filter",
    ]


def test_compare(checkpoints, tmp_path):
    pairs = [f"{name}={checkpoints('llama', seed=seed)}" for name, seed in (("base", 0), ("tuned", 1))]
    options = [
        "--tasks",
        "miniculture",
        "--reading",
        "minireading",
        "--top-mlp",
        0.1,
        "--top-attn",
        0.05,
        "--random-sets",
        1,
        "--limit",
        8,
    ]
    said = invoked("compare", *pairs, *options, "--device", "cpu", "--output-dir", tmp_path)
    assert "rank-correlation" in said and "| base, unchanged |" in said.replace(
        str(checkpoints("llama")), ""
    ).replace("|  |", "|")
    assert pd.read_csv(tmp_path / "layers.csv").columns.tolist() == ["layer", "base", "tuned"]
    assert (tmp_path / "base" / "study.json").is_file()
    with pytest.raises(StudyError, match="two checkpoints"):
        invoked("compare", "base=somewhere")


def test_bake(study, checkpoints, tmp_path):
    said = invoked(
        "bake",
        checkpoints("llama"),
        "--neurons",
        study / "neurons" / "culture-general.parquet",
        "--output-dir",
        tmp_path / "baked",
    )
    assert "The suppressed model" in said and (tmp_path / "baked" / "culnig_tl.json").is_file()


def test_language_wants_questions_in_two_wordings(checkpoints, tmp_path):
    with pytest.raises(TaskError, match="share no question"):
        invoked(
            "language",
            "--model",
            checkpoints("llama"),
            "--english",
            "miniculture",
            "--local",
            "miniculture",
            "--output-dir",
            tmp_path,
        )


def test_a_study_of_another_model_is_refused(study, checkpoints, tmp_path):
    import json
    import shutil

    copy = shutil.copytree(study, tmp_path / "copy")
    record = json.loads((copy / "study.json").read_text())
    record["config"]["model"] = str(checkpoints("llama", seed=1))
    (copy / "study.json").write_text(json.dumps(record))
    with pytest.raises(StudyError, match="not the model of the study"):
        invoked("parts", copy)


@pytest.mark.parametrize("command", ["sweep", "parts", "claim", "countries", "enhance"])
def test_the_unchanged_model_is_not_asked_again(study, tmp_path, monkeypatch, command):
    """The study holds its answers: none of the commands that go on from it asks them once more."""
    asked = []

    def watched(model, task, *, ablate=None, **options):
        asked.append(ablate)
        return evaluate(model, task, ablate=ablate, **options)

    for module in ("culnig_tl.method.evaluation", "culnig_tl.analyses.enhancing"):
        monkeypatch.setattr(f"{module}.evaluate", watched)
    options = {"sweep": ["--top", "0.05"], "claim": ["--rival", "minicommonsense"]}.get(command, [])
    invoked(command, study, *options, "--output-dir", tmp_path)
    assert asked and all(neurons is not None for neurons in asked)
