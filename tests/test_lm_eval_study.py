"""A study whose control task, and rival, is one of lm-evaluation-harness."""

# ruff: noqa: E402

from __future__ import annotations

import pytest

pytest.importorskip("lm_eval")

from culnig_tl import Study, load_task, run_study
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.lm_eval.export import export_task
from culnig_tl.run.plan import write_plan
from culnig_tl.study.config import RIVAL, TOY_CONFIG, UNCHANGED, StudyConfig

from .helpers import invoked

COUNT = 40


def config(file, **given) -> StudyConfig:
    asked = {"tasks": ("miniculture", f"lm_eval:{file}"), "limit": COUNT, "random_sets": 1}
    return StudyConfig(**{**vars(TOY_CONFIG), **asked, "rival": None, "device": "cpu", **given})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A task of the harness, in words that the toy knows."""
    task = load_task("minicommonsense", split="test", limit=COUNT, form="cloze")
    return export_task(task, tmp_path_factory.mktemp("theirs")).rename(
        tmp_path_factory.getbasetemp() / "theirs0" / "sense.yaml"
    )


@pytest.fixture(scope="module")
def study(file, tmp_path_factory) -> Study:
    """In the cloze form, against the harness' task as the rival."""
    folder = tmp_path_factory.mktemp("study") / "s"
    given = {"form": "cloze", "rival": f"lm_eval:{file}"}
    return run_study(config(file, **given), folder=folder, progress=False)


def test_it_is_a_task_without_culture(study):
    about = study.info["tasks"]["lm_eval:sense"]
    assert about["culture"] is False and about["questions"] == COUNT
    assert about["source"].startswith("lm-evaluation-harness")


def test_its_drop_counts_in_the_verdict(study):
    found = study.findings()
    assert list(found.drops) == ["miniculture", "lm_eval:sense"]
    assert study.drop("lm_eval:sense").random_sets == 1


def test_it_can_be_the_rival(study):
    assert study.scores[RIVAL].task == "lm_eval:sense"
    assert study.findings().rival == "lm_eval:sense"
    assert isinstance(study.neurons[RIVAL], NeuronSet) and len(study.neurons[RIVAL])
    assert study.drop_against_rival("lm_eval:sense").random_sets == 1  # on the half that it was not found on


def test_report_and_figures_have_it(study):
    page = (study.folder / "report.html").read_text(encoding="utf-8")
    assert "lm_eval:sense" in page and "in the words of lm-evaluation-harness" in page
    drawn = [path for path in (study.folder / "figures").iterdir() if "lm_eval:sense" in path.read_text()]
    assert drawn


def test_it_is_read_back_and_resumed_without_asking_again(study, monkeypatch):
    monkeypatch.setattr("culnig_tl.run.pieces.evaluate", None)
    monkeypatch.setattr("culnig_tl.run.pieces.score_neurons", None)
    again = run_study(study.config, folder=study.folder, resume=True, progress=False)
    assert again.results[UNCHANGED].accuracy().equals(study.results[UNCHANGED].accuracy())
    assert Study.load(study.folder).verdict() == study.verdict()


def test_beside_letters_it_keeps_its_own_form(file):
    mixed = run_study(config(file, limit=16), progress=False)
    assert mixed.results[UNCHANGED].metadata["form"] == {"miniculture": "letters", "lm_eval:sense": "cloze"}
    assert set(mixed.findings().drops) == {"miniculture", "lm_eval:sense"}


def test_it_is_planned(file, tmp_path):
    write_plan(config(file), tmp_path / "planned", overwrite=False)
    assert "lm_eval:sense" in (tmp_path / "planned" / "study.json").read_text()


def test_prompts_can_be_looked_at(file):
    said = invoked("tasks", "show", f"lm_eval:{file}", "--limit", 1)
    assert "Answer:" in said and "(or: " in said
