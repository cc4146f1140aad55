"""The whole study, on small random checkpoints: the folder, resuming, refusing, repeating."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from culnig_tl import EvaluationResult, NeuronScores, NeuronSet, Study, StudyConfig, run_study
from culnig_tl.errors import CulnigError, FileError, PromptError, ScoreError, StudyError
from culnig_tl.figures.gallery import figures_of
from culnig_tl.method.evaluation import evaluate
from culnig_tl.pages.report import command, write_report
from culnig_tl.run import pieces, pipeline
from culnig_tl.run.repeat import recorded
from culnig_tl.study.config import GENERAL, RIVAL, UNCHANGED

from .helpers import invoked
from .processes import content

MIRROR = Path(__file__).parents[2] / "shared" / "data" / "hub"
TASKS = ("miniculture", "minicommonsense", "minianswers")
SETTINGS = {UNCHANGED, GENERAL, RIVAL, "random 0", "random 1", "random by layer 0", "random by layer 1"}


@pytest.fixture(scope="module")
def config(checkpoints) -> StudyConfig:
    return StudyConfig(
        model=str(checkpoints("llama")),
        tasks=TASKS,
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


# ----------------------------------------------------------------------------------------------- its folder


def test_the_folder_holds_scores_neurons_and_results(finished):
    names = {
        kind: {p.stem for p in (finished.folder / kind).iterdir()}
        for kind in ("scores", "neurons", "results")
    }
    assert names["scores"] == {"neuron", "control", "reading", "rival"}
    assert names["neurons"] == set(finished.neurons)
    assert names["results"] == set(finished.results) == SETTINGS


def test_the_folder_holds_every_figure(finished):
    assert {p.stem for p in (finished.folder / "figures").glob("*.html")} == set(figures_of(finished))


def test_the_record_says_what_determined_the_study(finished):
    record = json.loads((finished.folder / "study.json").read_text())
    assert record["config"]["top_mlp"] == 0.1 and record["info"]["revision"] == finished.info["revision"]


def test_no_temporary_file_is_left(finished):
    assert not list(finished.folder.rglob(".*"))


def test_a_study_reads_back_equal(finished):
    again = Study.load(finished.folder)
    assert again.config == finished.config and again.sentence() == finished.sentence()
    assert again.table().equals(finished.table())


@pytest.mark.parametrize("name", ["neuron", "control", "reading", "rival"])
def test_scores_read_back_equal(finished, name):
    again = NeuronScores.load(finished.folder / "scores" / f"{name}.safetensors")
    for site, array in finished.scores[name].arrays.items():
        np.testing.assert_array_equal(again.arrays[site], array)


# ---------------------------------------------------------------------------------------------- its numbers


def percent_right(study: Study, setting: str) -> float:
    return 100 * study.results[setting].table.query("task == 'miniculture'")["correct"].mean()


def test_the_table_is_computed_from_the_answers(finished):
    table = finished.table()
    randoms = [percent_right(finished, f"random by layer {k}") for k in (0, 1)]
    assert table.loc[UNCHANGED, ("miniculture", "accuracy")] == pytest.approx(
        percent_right(finished, UNCHANGED)
    )
    row = table.loc["random by layer (mean of 2)", ("miniculture", "accuracy")]
    assert row == pytest.approx(np.mean(randoms))


def test_a_drop_is_computed_from_the_answers(finished):
    lost = percent_right(finished, UNCHANGED) - percent_right(finished, GENERAL)
    assert finished.drop("miniculture").drop == pytest.approx(lost)


def test_every_task_has_a_drop(finished):
    assert tuple(finished.drops().index) == TASKS


def test_a_task_that_was_not_asked_has_none(finished):
    with pytest.raises(StudyError, match="no answers to 'blend'"):
        finished.drop("blend")


# ------------------------------------------------------------------------------------------------- resuming


@pytest.fixture(scope="module")
def resumed(config, tmp_path_factory):
    """A study that died while its fifth set of answers was made, resumed: (it, what was read of it between,
    what was asked then)."""
    folder = tmp_path_factory.mktemp("killed") / "study"
    asked: list[str] = []

    def dies(*arguments, **options):
        asked.append(arguments[1].name)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    def counts(*arguments, **options):
        asked.append(arguments[1].name)
        return evaluate(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "evaluate", dies)
        with pytest.raises(KeyboardInterrupt):
            run_study(config, folder=folder, progress=False)
        between = shutil.copytree(folder, folder.with_name("between"))
        asked.clear()
        patch.setattr(pieces, "evaluate", counts)
        patch.setattr(pieces, "score_neurons", lambda *_, **__: pytest.fail("the scores were there"))
        return run_study(config, folder=folder, resume=True, progress=False), between, asked


def test_a_killed_study_keeps_what_was_finished(resumed):
    between = resumed[1]
    assert (between / "results" / "unchanged.parquet").is_file() and not (between / "report.html").exists()
    assert not list(between.rglob(".*"))


def test_a_killed_study_is_not_read_as_a_finished_one(resumed):
    with pytest.raises(StudyError, match="not finished"):
        Study.load(resumed[1])


def test_resuming_asks_every_setting_but_the_finished_one(resumed):
    assert len(resumed[2]) == (len(SETTINGS) - 1) * len(TASKS)


def test_a_resumed_study_gives_the_same_bytes(resumed, finished):
    assert content(resumed[0].folder, ["scores/*", "neurons/*"]) == content(
        finished.folder, ["scores/*", "neurons/*"]
    )
    assert resumed[0].table().equals(finished.table())


# ------------------------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    ("changed", "how", "says"),
    [({}, {}, "already holds a study"), ({"top_mlp": 0.2}, {"resume": True}, "top_mlp = 0.1, not 0.2")],
)
def test_another_studys_folder_is_not_touched(config, finished, changed, how, says):
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")}
    with pytest.raises(StudyError, match=says):
        run_study(replace(config, **changed), folder=finished.folder, progress=False, **how)
    assert {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")} == before


def test_a_folder_with_other_things_is_not_touched(config, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StudyError, match="holds other things"):
        run_study(config, folder=tmp_path, overwrite=True, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(FileError, match="study.json is not a file of a record of a study"):
        Study.load(tmp_path)


def test_a_folder_without_a_study_is_named(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        Study.load(tmp_path / "nowhere")


def test_truncated_scores_are_refused_not_half_read(config, finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "study")
    path = folder / "scores" / "neuron.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileError, match=r"neuron\.safetensors is not a file of scores"):
        run_study(config, folder=folder, resume=True, progress=False)


def test_tasks_without_culture_are_refused(config):
    with pytest.raises(StudyError, match="add blend"):
        run_study(replace(config, tasks=("minianswers",)), progress=False)


# ----------------------------------------------------------------------------------------------- its report


def test_the_report_is_one_page_without_network(finished):
    page = (finished.folder / "report.html").read_text()
    assert " src=" not in page.split("<script>", 1)[0] and len(page) < 10_000_000


def test_the_report_shows_headline_and_figures(finished):
    page = (finished.folder / "report.html").read_text()
    assert finished.findings().headline() in page.replace("&#39;", "'")
    assert page.count('class="plot"') == len(figures_of(finished))


def test_names_from_data_stay_text(finished, tmp_path):
    hostile = replace(finished, config=replace(finished.config, model="<script>alert(1)</script>"))
    assert "<script>alert(1)" not in write_report(hostile, tmp_path / "hostile.html").read_text()


# ------------------------------------------------------------------------------------------------ repeating


def test_the_reports_command_repeats_the_study(finished, tmp_path):
    program, *words = shlex.split(command(finished))
    invoked(*words, "--output-dir", tmp_path / "again")
    again = Study.load(tmp_path / "again")
    assert program == "culnig-tl" and again.config == finished.config
    assert again.neurons[GENERAL].hash == finished.neurons[GENERAL].hash and again.table().equals(
        finished.table()
    )


def repeated(record: Path, folder: Path, *options: object) -> Path:
    """Repeats a study from its record, without drawing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "draw", lambda study, place: [])
        invoked("run", "--from", record, "--output-dir", folder, *options)
    return folder


@pytest.fixture(scope="module")
def again(finished, tmp_path_factory) -> Path:
    return repeated(finished.folder / "study.json", tmp_path_factory.mktemp("repeated") / "again")


def test_a_study_is_repeated_from_its_record_to_the_same_bytes(again, finished):
    assert content(again) == content(finished.folder)
    assert Study.load(again).info == finished.info


def test_a_repeat_takes_no_other_arguments(finished, tmp_path):
    with pytest.raises(StudyError, match="leave out --top-mlp"):
        repeated(finished.folder / "study.json", tmp_path / "again", "--top-mlp", 0.2)


def test_a_record_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileError, match="no such file of a record of a study: nowhere.json"):
        repeated(Path("nowhere.json"), tmp_path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda info: info["tasks"]["miniculture"].update(fingerprint="another"),
            "the fingerprint of miniculture",
        ),
        (lambda info: info.update(revision="another"), "revision of the model is"),
    ],
)
def test_a_repeat_of_something_else_is_refused_before_anything_is_overwritten(
    again, finished, tmp_path, spoil, says
):
    changed = json.loads((finished.folder / "study.json").read_text())
    spoil(changed["info"])
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    with pytest.raises(StudyError, match=f"this would not repeat the study.*{says}"):
        repeated(tmp_path / "changed.json", again, "--overwrite")
    assert content(again) == content(finished.folder)


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        '{"model": "toy"}',
        '{"model": "toy", "tasks": "miniculture"}',
        '{"model": "toy", "tasks": [["x"]]}',
    ],
)
def test_what_is_no_record_is_refused(tmp_path, config):
    (tmp_path / "changed.json").write_text(f'{{"config": {config}, "info": {{"tasks": {{}}}}}}')
    with pytest.raises(FileError, match="is not a file of a record of a study"):
        repeated(tmp_path / "changed.json", tmp_path / "again")


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path):
    words = ["run", "--limit", 16, "--batch-size", 4, "--random-sets", 2, "--dry-run"]
    said = invoked(*words, "--output-dir", tmp_path / "study")
    for part in ("miniculture:control", "time:   about", "memory:", "disk:   about"):
        assert part in said
    assert not (tmp_path / "study").exists()


# ------------------------------------------------------------------------------------------------ real rows


@pytest.fixture(scope="module")
def real(checkpoints, tmp_path_factory) -> Study:
    """A Qwen3 checkpoint from a folder, BLEnD's and CommonsenseQA's real rows, CountryRC."""
    if not MIRROR.is_dir():
        pytest.skip("no mirror of the Hub's data sets beside the project")
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
    return run_study(config, folder=tmp_path_factory.mktemp("real") / "study", progress=False)


def test_real_rows_are_scored_country_by_country(real):
    scores = NeuronScores.load(real.folder / "scores/neuron.safetensors")
    assert real.culture_task == "blend" and len(scores.countries) == 16 and sum(scores.questions) == 32
    assert tuple(scores.widths.values()) == (72, 96, 48, 48)


def test_the_right_number_of_candidates_is_taken(real):
    general = NeuronSet.load(real.folder / "neurons/culture-general.parquet")
    assert general.provenance.candidates == int(3 * 72 * 0.1) + int(3 * (96 + 48 + 48) * 0.05)


def test_real_rows_are_asked_and_reported(real):
    assert set(real.results[UNCHANGED].table["task"]) == {"blend", "commonsenseqa"}
    assert (real.folder / "report.html").is_file()


# ---------------------------------------------------------------------------- whose places data are read from


@pytest.fixture
def foreign(finished, tmp_path) -> Path:
    """A record that names a folder to read data from."""
    record = json.loads((finished.folder / "study.json").read_text())
    record["config"]["data_dir"] = str(tmp_path)
    (tmp_path / "foreign.json").write_text(json.dumps(record))
    return tmp_path / "foreign.json"


def test_a_records_data_folder_is_read_where_the_user_says_so(foreign, caplog):
    assert recorded(foreign).config.data_dir is None
    assert f"--data-dir {foreign.parent}" in caplog.text
    assert recorded(foreign, ["--data-dir"]).config.data_dir == str(foreign.parent)


def test_a_records_files_are_read_where_the_user_says_so(foreign):
    record = json.loads(foreign.read_text())
    record["config"] |= {"tasks": ["/etc/mine.jsonl"], "data_dir": None}
    foreign.write_text(json.dumps(record))
    with pytest.raises(StudyError, match="has questions read from elsewhere: .* say --tasks /etc/mine.jsonl"):
        recorded(foreign)
    assert recorded(foreign, ["--tasks"]).config.tasks == ("/etc/mine.jsonl",)


def test_a_records_wordings_are_read_where_the_user_says_so(foreign):
    record = json.loads(foreign.read_text())
    record["config"] |= {"wordings": "/etc/words.toml", "data_dir": None}
    foreign.write_text(json.dumps(record))
    with pytest.raises(StudyError, match="read from elsewhere: .* say --wordings /etc/words.toml"):
        recorded(foreign)
    assert recorded(foreign, ["--wordings"]).config.wordings == "/etc/words.toml"
    record["config"]["wordings"] = "paper"
    foreign.write_text(json.dumps(record))
    assert recorded(foreign).config.wordings == "paper", "which come with the package"


def test_a_folder_of_somebody_elses_does_not_say_where_data_are(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "study")
    record = json.loads((folder / "study.json").read_text())
    record["config"]["data_dir"] = "/somewhere"
    (folder / "study.json").write_text(json.dumps(record))
    assert Study.load(folder).config.data_dir is None


# ----------------------------------------------------------------------------------- parts of several studies


def mixed(finished, folder: Path, name: str, change) -> None:
    """One of a study's files is another's."""
    shutil.copytree(finished.folder, folder)
    path = folder / name
    kind = NeuronScores if path.suffix == ".safetensors" else EvaluationResult
    stored = kind.load(path)
    about = json.loads(json.dumps(dict(stored.metadata)))
    change(about)
    replace(stored, metadata=about).save(path)


@pytest.mark.parametrize("name", ["scores/control.safetensors", "results/culture-general.parquet"])
@pytest.mark.parametrize("part", ["weights", "settings", "model", "dtype", "wording", "attention"])
def test_a_part_of_another_model_is_seen(name, part, finished, tmp_path):
    mixed(finished, tmp_path / "study", name, lambda about: about["identity"].update({part: "another"}))
    with pytest.raises(
        StudyError, match=rf"holds parts of several studies: in {name.split('.')[0]} the {part}"
    ):
        Study.load(tmp_path / "study")


def test_answers_of_other_neurons_are_seen(finished, tmp_path):
    name = "results/culture-general.parquet"
    mixed(finished, tmp_path / "study", name, lambda about: about["identity"].update(neurons="another"))
    with pytest.raises(StudyError, match="results/culture-general are of other neurons"):
        Study.load(tmp_path / "study")


def test_neurons_of_another_model_are_seen(finished, tmp_path):
    folder = shutil.copytree(finished.folder, tmp_path / "study")
    neurons = finished.neurons["culture-specific"]
    known = replace(neurons.provenance, identity="another")
    NeuronSet(neurons.table, known).save(folder / "neurons" / "culture-specific.parquet")
    with pytest.raises(StudyError, match="neurons/culture-specific are of another model"):
        Study.load(folder)


# ----------------------------------------------------------------------------------------- what fails at once


def test_what_nothing_can_be_selected_with_fails_before_the_first_pass(config, monkeypatch):
    monkeypatch.setattr(pieces, "score_neurons", lambda *given, **how: pytest.fail("it was scored"))
    with pytest.raises(CulnigError, match="empty: select a larger share"):
        run_study(replace(config, top_mlp=1e-9, top_attn=0.0), progress=False)


def test_a_question_without_tokens_fails_before_the_first_pass(config, monkeypatch):
    monkeypatch.setattr(pieces, "score_neurons", lambda *given, **how: pytest.fail("it was scored"))
    monkeypatch.setattr(pipeline, "encode", _refuse)
    with pytest.raises(PromptError):
        run_study(config, progress=False)


def test_a_task_that_does_not_fit_fails_before_the_first_pass(config, checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "score_neurons", lambda *given, **how: pytest.fail("it was scored"))
    row = {"question": "Who sang? " + "La. " * 3000, "options": ["a", "b"], "answer": "a"}
    (tmp_path / "epics.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ScoreError, match="no question of epics fits in the model's context"):
        run_study(replace(config, tasks=(*config.tasks, str(tmp_path / "epics.jsonl"))), progress=False)


def test_a_disk_without_room_for_the_scores_fails_before_the_first_pass(config, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "score_neurons", lambda *given, **how: pytest.fail("it was scored"))
    room = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(pipeline.shutil, "disk_usage", lambda folder: room)
    with pytest.raises(StudyError, match="the scores take .* GB on the way, and 1e-05 GB are free there"):
        run_study(config, folder=tmp_path / "study", progress=False)
    assert not (tmp_path / "study" / "study.json").exists()


def _refuse(*given, **how):
    raise PromptError("a label is not one token")
