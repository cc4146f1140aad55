"""The commands methods, truth, enhance, stability and values, on a small random checkpoint."""

from __future__ import annotations

import pandas as pd
import pytest

from culnig_tl import NeuronSet
from culnig_tl.errors import StudyError
from culnig_tl.run.pipeline import run_study
from culnig_tl.study.config import StudyConfig

from .helpers import invoked

CONFIG = {
    "tasks": ("miniculture", "minicommonsense"),
    "reading": "minireading",
    "top_mlp": 0.1,
    "top_attn": 0.05,
    "top_specific": 0.1,
    "random_sets": 1,
    "limit": 8,
    "device": "cpu",
    "rival": None,
}


@pytest.fixture(scope="module")
def study(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "llama"
    run_study(StudyConfig(model=str(checkpoints("llama")), **CONFIG), folder=folder, progress=False)
    return folder


def test_methods(checkpoints, tmp_path):
    said = invoked(
        "methods",
        "--model",
        checkpoints("llama"),
        "--tasks",
        "miniculture,minicommonsense",
        "--reading",
        "minireading",
        "--sample",
        4,
        "--limit",
        2,
        "--asked",
        8,
        "--methods",
        "culnig,cape,random",
        "--contrast",
        "minicommonsense",
        "--top-mlp",
        0.1,
        "--top-attn",
        0.05,
        "--output-dir",
        tmp_path,
    )
    table = pd.read_csv(tmp_path / "methods.csv", index_col="method")
    assert list(table.index) == ["culnig", "culnig, filter", "cape", "random", "unchanged"]
    assert list(table["scored"].dropna()) == [4, 6, 2, 2]
    assert "hurts culture most" in said and "48 neurons zeroed" in said
    assert len(pd.read_parquet(tmp_path / "truth.parquet")) == 48
    assert len(pd.read_csv(tmp_path / "overlap.csv")) == 4 and set(
        pd.read_csv(tmp_path / "curves.csv")["task"]
    ) == {
        "miniculture",
        "minicommonsense",
    }
    assert len(pd.read_csv(tmp_path / "held-out.csv")) == 5
    for name in ("methods", "methods-curves", "methods-selectivity", "methods-overlap"):
        assert "plotly" in (tmp_path / f"{name}.html").read_text(encoding="utf-8").lower()


def test_methods_wants_culture(checkpoints):
    with pytest.raises(StudyError, match="add blend"):
        invoked("methods", "--model", checkpoints("llama"), "--tasks", "minicommonsense")


def test_truth(checkpoints, tmp_path):
    said = invoked(
        "truth",
        "--model",
        checkpoints("llama"),
        "--sites",
        "mlp.gate,attn.v",
        "--limit",
        1,
        "-o",
        tmp_path / "truth.csv",
    )
    table = pd.read_csv(tmp_path / "truth.csv")
    assert table.groupby("site").size().to_dict() == {"attn.v": 48, "mlp.gate": 216} and "culnig-sum" in said


def test_enhance(study, tmp_path):
    said = invoked("enhance", study, "--factors", "1.5,2", "--random-sets", 1, "--output-dir", tmp_path)
    table = pd.read_csv(tmp_path / "enhance.csv")
    assert (
        set(table["factor"]) == {1.5, 2.0}
        and {"culture-general", "random by layer"} <= set(table["set"])
        and "nhancing" in said
    )
    assert "plotly" in (tmp_path / "enhance.html").read_text(encoding="utf-8").lower()


def test_stability(study, tmp_path):
    said = invoked("stability", study, "--replicates", 5, "--output-dir", tmp_path)
    neurons = NeuronSet.load(tmp_path / "stability.parquet")
    assert {"returns", "wordings"} <= set(neurons.table.columns) and neurons == NeuronSet.load(
        study / "neurons" / "culture-general.parquet"
    )
    assert (
        set(pd.read_csv(tmp_path / "stability.csv")["kind"]) == {"bootstrap", "wordings"}
        and "wording 4" in said
    )
    assert len(pd.read_csv(tmp_path / "returns.csv")) >= len(neurons)


def test_values(checkpoints, tmp_path):
    invoked(
        "values",
        "--model",
        checkpoints("llama"),
        "--tasks",
        "miniculture,minicommonsense",
        "--reading",
        "minireading",
        "--limit",
        4,
        "--top-mlp",
        0.1,
        "--top-attn",
        0.05,
        "--random-sets",
        1,
        "--output-dir",
        tmp_path,
    )
    table = pd.read_csv(tmp_path / "cross-effects.csv")
    assert len(table) == 4 and len(pd.read_csv(tmp_path / "overlap.csv")) == 1
    assert len(NeuronSet.load(tmp_path / "miniculture.parquet"))
