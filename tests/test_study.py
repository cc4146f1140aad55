"""The whole study, on small random checkpoints: the folder, resuming, refusing, repeating."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from culnig_tl.cli import app
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.data.scores import NeuronScores
from culnig_tl.data.statistics import compare_drops
from culnig_tl.errors import StudyError
from culnig_tl.pages.report import command
from culnig_tl.run.pipeline import run_study
from culnig_tl.study.config import GENERAL, RIVAL, UNCHANGED, StudyConfig
from culnig_tl.study.study import Study

from .processes import content

MIRROR = Path(__file__).parents[2] / "shared" / "data" / "hub"


@pytest.fixture(scope="module")
def config(checkpoints) -> StudyConfig:
    return StudyConfig(
        model=str(checkpoints("llama")),
        tasks=("miniculture", "minicommonsense", "minianswers"),
        reading="minireading",
        rival="minicommonsense",
        top_mlp=0.1,
        top_attn=0.05,
        random_sets=2,
        limit=24,
        device="cpu",
    )


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> Study:
    return run_study(config, folder=tmp_path_factory.mktemp("runs") / "study", progress=False)


def test_folder_holds_the_whole_study(finished):
    folder = finished.folder
    assert {p.name for p in (folder / "scores").iterdir()} == {
        f"{name}.safetensors" for name in ("neuron", "control", "reading", "rival")
    }
    assert {p.stem for p in (folder / "neurons").iterdir()} == set(finished.neurons)
    assert {p.stem for p in (folder / "results").iterdir()} == set(finished.results) == {
        UNCHANGED, GENERAL, RIVAL, "random 0", "random 1", "random by layer 0", "random by layer 1",
    }  # fmt: skip
    assert {p.stem for p in (folder / "figures").glob("*.html")} == set(finished.figures())
    record = json.loads((folder / "study.json").read_text())
    assert record["config"]["top_mlp"] == 0.1 and record["info"]["revision"] == finished.info["revision"]
    assert not [p for p in folder.rglob(".*")], "no temporary file is left"


def test_study_reads_back_equal(finished):
    again = Study.load(finished.folder)
    assert again.config == finished.config
    assert again.sentence() == finished.sentence()
    assert again.table().equals(finished.table())
    for name, scores in finished.scores.items():
        for site, array in scores.arrays.items():
            np.testing.assert_array_equal(again.scores[name].arrays[site], array)


def test_table_and_drops_are_computed_from_the_answers(finished):
    table = finished.table()
    unchanged, general = (
        finished.results[s].table.query("task == 'miniculture'") for s in (UNCHANGED, GENERAL)
    )
    assert table.loc[UNCHANGED, ("miniculture", "accuracy")] == pytest.approx(
        100 * unchanged["correct"].mean()
    )
    drop = finished.drop("miniculture")
    assert drop.drop == pytest.approx(100 * (unchanged["correct"].mean() - general["correct"].mean()))
    randoms = [
        100 * finished.results[s].table.query("task == 'miniculture'")["correct"].mean()
        for s in ("random by layer 0", "random by layer 1")
    ]
    assert table.loc["random by layer (mean of 2)", ("miniculture", "accuracy")] == pytest.approx(
        np.mean(randoms)
    )
    assert list(finished.drops().index) == ["miniculture", "minicommonsense", "minianswers"]


def test_verdict_follows_the_numbers(finished, monkeypatch):
    def drops(culture, other):
        def drop(self, task, match="layer"):
            lost = culture if task == "miniculture" else other
            base = np.ones(200)
            ablated, random = base.copy(), base.copy()
            ablated[:lost], random[:10] = 0, 0
            return compare_drops(base, ablated, [random, random], np.arange(200))

        return drop

    monkeypatch.setattr(Study, "drop", drops(10, 10))
    assert "nothing is shown" in finished.verdict()
    monkeypatch.setattr(Study, "drop", drops(60, 70))
    assert "not culture alone" in finished.verdict()
    monkeypatch.setattr(Study, "drop", drops(60, 12))
    monkeypatch.setattr(Study, "drop_against_rival", drops(60, 2))
    alone = "more than every random set, and more than any task without culture loses"
    assert finished.verdict() == f"{alone}, and more than as many neurons of minicommonsense do"
    assert "−30.0 points" in finished.sentence()


def test_resumed_study_gives_the_same_bytes(config, finished, tmp_path, monkeypatch):
    folder = tmp_path / "killed"
    calls = []

    def dies(*args, **kwargs):
        calls.append(args[1].name)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return evaluate(*args, **kwargs)

    from culnig_tl.method.evaluation import evaluate
    from culnig_tl.run import pieces as module

    monkeypatch.setattr(module, "evaluate", dies)
    with pytest.raises(KeyboardInterrupt):
        run_study(config, folder=folder, progress=False)
    assert (folder / "results" / "unchanged.parquet").is_file() and not (folder / "report.html").exists()
    assert not [p for p in folder.rglob(".*")]
    with pytest.raises(StudyError, match="not finished"):
        Study.load(folder)

    asked_again = []
    monkeypatch.setattr(
        module, "evaluate", lambda *a, **k: asked_again.append(a[1].name) or evaluate(*a, **k)
    )
    monkeypatch.setattr(module, "score_neurons", lambda *a, **k: pytest.fail("scores were there"))
    resumed = run_study(config, folder=folder, resume=True, progress=False)
    assert len(asked_again) == 6 * 3, "the unchanged answers were kept"
    for name in ("neuron", "control", "reading"):
        assert (folder / f"scores/{name}.safetensors").read_bytes() == (
            finished.folder / f"scores/{name}.safetensors"
        ).read_bytes()
    assert resumed.table().equals(finished.table())


def test_folder_of_another_study_is_not_touched(config, finished, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")}
    with pytest.raises(StudyError, match="already holds a study"):
        run_study(config, folder=finished.folder, progress=False)
    with pytest.raises(StudyError, match="top_mlp = 0.1, not 0.2"):
        run_study(replace(config, top_mlp=0.2), folder=finished.folder, resume=True, progress=False)
    assert {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")} == before
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StudyError, match="holds other things"):
        run_study(config, folder=tmp_path, overwrite=True, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_corrupt_record_is_named(tmp_path):
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(StudyError, match="study.json is not a study's record"):
        Study.load(tmp_path)
    with pytest.raises(StudyError, match="holds no study"):
        Study.load(tmp_path / "nowhere")


def test_truncated_scores_are_refused_not_half_read(config, finished, tmp_path):
    import shutil

    folder = tmp_path / "study"
    shutil.copytree(finished.folder, folder)
    path = folder / "scores" / "neuron.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Exception, match=r"neuron\.safetensors is not a file of scores"):
        run_study(config, folder=folder, resume=True, progress=False)


def test_tasks_without_culture_are_refused(config):
    with pytest.raises(StudyError, match="add blend"):
        run_study(replace(config, tasks=("minianswers",)), progress=False)


def test_report_is_one_page_without_network(finished):
    page = (finished.folder / "report.html").read_text()
    assert finished.findings().headline() in page.replace("&#39;", "'")
    assert (
        page.count('class="plot"') == len(finished.figures()) and " src=" not in page.split("<script>", 1)[0]
    ), "nothing is fetched"
    assert len(page) < 10_000_000


def test_names_from_data_stay_text(finished):
    from culnig_tl.pages.report import write_report

    hostile = replace(finished.config, model="<script>alert(1)</script>")
    page = write_report(
        Study(hostile, finished.info, finished.scores, finished.neurons, finished.results),
        finished.folder / "hostile.html",
    )
    assert "<script>alert(1)" not in page.read_text()


def test_command_repeats_the_study(finished, tmp_path):
    from typer.testing import CliRunner

    words = shlex.split(command(finished))
    assert words[:2] == ["culnig-tl", "run"]
    result = CliRunner().invoke(
        app, [*words[1:], "--output-dir", str(tmp_path / "again")], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    again = Study.load(tmp_path / "again")
    assert again.config == finished.config
    assert again.neurons[GENERAL].hash == finished.neurons[GENERAL].hash
    assert again.table().equals(finished.table())


def test_a_study_is_repeated_from_its_record(finished, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from culnig_tl.run import pipeline

    def said(*words: str) -> str:
        result = CliRunner().invoke(app, ["run", *words, "--output-dir", str(tmp_path / "again")])
        return str(result.exception) if result.exception else result.output

    record = str(finished.folder / "study.json")
    assert "leave out --top-mlp" in said("--from", record, "--top-mlp", "0.2")
    assert "no such record of a study: nowhere.json" in said("--from", "nowhere.json")
    monkeypatch.setattr(pipeline, "draw", lambda study, place: None)
    assert "The report:" in said("--from", record)
    again = Study.load(tmp_path / "again")
    assert again.config == finished.config and again.info == finished.info
    assert content(tmp_path / "again") == content(finished.folder), "the same bytes"

    changed = json.loads(Path(record).read_text())
    for what, spoil in (
        (
            "questions, the fingerprint of miniculture",
            lambda r: r["info"]["tasks"]["miniculture"].update(fingerprint="another"),
        ),
        ("revision of the model is", lambda r: r["info"].update(revision="another")),
    ):
        spoil(changed)
        (tmp_path / "changed.json").write_text(json.dumps(changed))
        message = said("--from", str(tmp_path / "changed.json"), "--overwrite")
        assert "this would not repeat the study" in message and what in message
    assert content(tmp_path / "again") == content(finished.folder), (
        "what was to be overwritten is still there"
    )
    for config in (
        "[]",
        '{"model": "toy"}',
        '{"model": "toy", "tasks": "miniculture"}',
        '{"model": "toy", "tasks": [["x"]]}',
    ):
        (tmp_path / "changed.json").write_text(f'{{"config": {config}, "info": {{"tasks": {{}}}}}}')
        assert "is not a study's record" in said("--from", str(tmp_path / "changed.json"))


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path):
    from typer.testing import CliRunner

    words = [
        "run",
        "--limit",
        "16",
        "--batch-size",
        "4",
        "--random-sets",
        "2",
        "--dry-run",
        "--output-dir",
        str(tmp_path / "study"),
    ]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    for part in (
        "miniculture:control",
        "16",
        "time:   about",
        "tokens a second are scored",
        "memory:",
        "of weights",
        "disk:   about",
    ):
        assert part in result.output
    assert not (tmp_path / "study").exists()


@pytest.mark.skipif(not MIRROR.is_dir(), reason="no mirror of the Hub's data sets beside the project")
def test_real_rows_through_the_whole_study(checkpoints, tmp_path):
    """A Qwen3 checkpoint from a folder, BLEnD's and CommonsenseQA's real rows, CountryRC."""
    config = StudyConfig(
        model=str(checkpoints("qwen3")),
        tasks=("blend", "commonsenseqa"),
        data_dir=str(MIRROR),
        limit=32,
        top_mlp=0.1,
        top_attn=0.05,
        random_sets=1,
        device="cpu",
    )
    study = run_study(config, folder=tmp_path / "study", progress=False)
    assert study.culture_task == "blend"
    scores = NeuronScores.load(tmp_path / "study/scores/neuron.safetensors")
    assert len(scores.countries) == 16 and sum(scores.questions) == 32
    assert all(scores.widths[site] == width for site, width in zip(scores.widths, (72, 96, 48, 48)))
    general = NeuronSet.load(tmp_path / "study/neurons/culture-general.parquet")
    assert general.provenance.candidates == int(3 * 72 * 0.1) + int(3 * (96 + 48 + 48) * 0.05)
    assert set(study.results[UNCHANGED].table["task"]) == {"blend", "commonsenseqa"}
    assert (tmp_path / "study/report.html").is_file()
