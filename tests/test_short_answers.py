"""Asking in words: results, their comparison by region, going on after a stop, the command."""

from __future__ import annotations

import json
import os
import signal

import pandas as pd
import pytest

from culnig_tl import NeuronSet, Question, Task, compare
from culnig_tl.data.results import COLUMNS, EvaluationResult, concat
from culnig_tl.engine.checkpoint import Checkpoint
from culnig_tl.engine.identity import model_identity
from culnig_tl.errors import MatchError, NeuronError, ScoreError
from culnig_tl.method.answers import short_answers
from culnig_tl.method.answers.short_answers import (
    LANGUAGE,
    ask_in_folder,
    ask_short_answers,
    by_region,
    compare_answers,
)
from culnig_tl.method.evaluation import evaluate

from . import families
from .helpers import invoked
from .tasks.builders import write_saq

NEURONS = NeuronSet.from_indices([("mlp.gate", 1, n) for n in range(0, 72, 3)] + [("attn.v", 0, 3)])


def questions(count=6):
    """Half of them about Spain, half about Greece."""
    made = []
    for i in range(count):
        country, language, accepted = (("Spain", "es", ("uva", "turrón")), ("Greece", "el", ("κουλούρι",)))[
            i % 2
        ]
        made.append(
            Question(
                task="saq",
                id=f"q{i}",
                cluster=f"c{i // 2}",
                prompt=f"{'What? ' * (i + 1)}\nQuestion: eat uva?",
                options=(),
                answer=accepted[0],
                country=country,
                template=i % 3,
                accepted=accepted,
                language=language,
            )  # fmt: skip
        )
    return Task("saq", tuple(made), source="tests", culture=True)


@pytest.fixture
def scripted(monkeypatch):
    """The model says what it is told to; `scripted.asked` are the questions it was asked."""

    class Script:
        def __init__(self):
            self.asked, self.dies_after, self.kill_after = [], None, None
            self.texts = {"Spain": "Comemos uvas.", "Greece": "bread"}

        def __call__(self, model, prompts, way, ends, *, max_new_tokens):
            if self.dies_after is not None and len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            if self.kill_after is not None and len(self.asked) >= self.kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            self.asked += [p.question.id for p in prompts]
            said = [
                model.tokenizer(self.texts[p.question.country], add_special_tokens=False)["input_ids"]
                for p in prompts
            ]
            return [row[:max_new_tokens] for row in said]

    script = Script()
    monkeypatch.setattr(short_answers, "generate", script)
    return script


def ask(model, task, **options):
    return ask_short_answers(model, task, progress=False, **options)


def test_an_ordinary_result(loaded, scripted):
    model, task = loaded("llama", chat=True), questions()
    result = ask(model, task)
    assert tuple(result.table.columns) == (*COLUMNS, LANGUAGE) and len(result) == len(task)
    assert result.table["predicted"].tolist() == ["Comemos uvas.", "bread"] * 3
    assert result.table["correct"].tolist() == [True, False] * 3 == result.table["correct_label"].tolist()
    assert result.table["p_answer"].isna().all() and result.table["correct"].dtype == bool
    assert result.accuracy().loc["saq", "accuracy"] == 50
    regions = result.accuracy(["country", LANGUAGE])["accuracy"]
    assert regions["Spain", "es"] == 100 and regions["Greece", "el"] == 0
    assert result.accuracy(LANGUAGE)["questions"].tolist() == [3, 3] and len(result.accuracy("template")) == 3
    about = result.metadata
    assert (
        about["fingerprints"] == {"saq": task.fingerprint}
        and about["neurons"] is None
        and about["setting"] == "unchanged"
    )
    assert "simplemma" in about["analysers"]["saq, es"] and about["max_new_tokens"] == {"saq": 512}
    json.dumps(about)
    assert "50.00" in str(result)


def test_an_answer_that_was_cut_off_is_counted(loaded, scripted):
    result = ask(loaded("llama", chat=True), questions(), max_new_tokens=3)
    assert result.metadata["cut_off"]["saq"] == 3  # "Comemos uvas." is more than three tokens


def test_what_the_prompt_says_does_not_count(loaded, scripted):
    task = questions()
    scripted.texts["Spain"] = f"{task[0].prompt}\nI do not know."
    assert not ask(loaded("llama", chat=True), task).table["correct"].any()
    scripted.texts["Spain"] = f"{task[0].prompt}\nUvas!"
    assert ask(loaded("llama", chat=True), task).table["correct"].tolist() == [True, False] * 3


def test_batches_of_any_size_and_every_step_for_real(loaded):
    model, task = loaded("llama", chat=True), questions()
    whole, single = (ask(model, task, batch_size=size, max_new_tokens=6) for size in (6, 1))
    pd.testing.assert_frame_equal(whole.table, single.table)
    off = ask(model, task, max_new_tokens=6, ablate=NEURONS)
    assert off.table["predicted"].tolist() != whole.table["predicted"].tolist()
    assert off.metadata["neurons"] == NEURONS.hash and off.metadata["operation"] == "suppress"
    assert off.metadata["native_attention"] and not any(point.fwd_hooks for point in model.hook_dict.values())


def test_suppressed_against_random_by_region(loaded, scripted):
    model, task = loaded("llama", chat=True), questions(12)
    base = ask(model, task)
    scripted.texts["Spain"] = "pan"
    off, random = ask(model, task, ablate=NEURONS), base
    assert compare(base, off, [random]).drops["saq"].drop == 50
    regions = compare(by_region(base), by_region(off), [by_region(random)]).table()
    assert regions.loc["Spain, es", "drop"] == 100 and regions.loc["Greece, el", "drop"] == 0
    assert regions.loc["Spain, es", "rank"] == 1


def test_a_users_own_analyser(loaded, scripted):
    result = ask(
        loaded("llama", chat=True), questions(), analysers={"es": str.split, "el": lambda text: ["κουλούρι"]}
    )
    assert result.table["correct"].tolist() == [False, True] * 3  # "uvas." is not "uva"
    assert result.metadata["analysers"]["saq, es"] == "the user's str.split"


def test_answers_of_others_are_compared_too():
    result = compare_answers(questions(2), ["uvas", "Τα κουλούρια"])
    assert result.table["correct"].all()
    with pytest.raises(ScoreError, match="1 answers to the 2 questions"):
        compare_answers(questions(2), ["uvas"])


def test_bad_input(loaded, scripted, monkeypatch):
    model = loaded("llama", chat=True)
    with pytest.raises(ScoreError, match="no question"):
        ask(model, Task("saq", ()))
    with pytest.raises(ScoreError, match="label"):
        ask(model, families.questions(3))
    with pytest.raises(ScoreError, match="max_new_tokens"):
        ask(model, questions(), max_new_tokens=0)
    strange = Task(
        "saq",
        (
            Question(
                task="saq",
                id="1",
                cluster="1",
                prompt="?",
                options=(),
                answer="a",
                accepted=("a",),
                language="xx",
            ),
        ),
    )
    with pytest.raises(MatchError, match="'xx'"):
        ask(model, strange)
    silent = Task(
        "saq",
        (Question(task="saq", id="1", cluster="1", prompt="?", options=(), answer="a", accepted=("a",)),),
    )
    with pytest.raises(ScoreError, match="in which language"):
        ask(model, silent)
    assert not scripted.asked


def test_a_stopped_run_goes_on_and_ends_in_the_same(loaded, scripted, tmp_path):
    model, task = loaded("llama", chat=True), questions(8)
    expected = ask(model, task, batch_size=2)
    scripted.asked.clear()
    scripted.dies_after = 4
    with pytest.raises(KeyboardInterrupt):
        ask(model, task, batch_size=2, checkpoint=Checkpoint(tmp_path / "a.state", every=0))
    first, scripted.dies_after = list(scripted.asked), None
    scripted.asked.clear()
    result = ask(model, task, batch_size=2, checkpoint=Checkpoint(tmp_path / "a.state", every=0))
    assert len(first) == 4 and sorted(first + scripted.asked) == sorted(q.id for q in task)
    pd.testing.assert_frame_equal(result.table, expected.table)
    assert result.metadata["identity"]["model"] == model_identity(model)["model"]
    # Other neurons or a longer answer are other work: nothing is taken from the state.
    for other in ({"ablate": NEURONS}, {"max_new_tokens": 100}):
        scripted.asked.clear()
        ask(model, task, batch_size=2, checkpoint=Checkpoint(tmp_path / "a.state", every=0), **other)
        assert len(scripted.asked) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_process_leaves_what_it_has_answered(loaded, scripted, tmp_path):
    model, task = loaded("llama", chat=True), questions(8)
    child = os.fork()
    if not child:
        scripted.kill_after = 6
        try:
            ask(model, task, batch_size=2, checkpoint=Checkpoint(tmp_path / "a.state", every=0))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    result = ask(model, task, batch_size=2, checkpoint=Checkpoint(tmp_path / "a.state", every=0))
    assert len(scripted.asked) == 2 and result.table["correct"].tolist() == [True, False] * 4


def test_a_folder_of_results(loaded, scripted, tmp_path):
    model, task = loaded("llama", chat=True), questions(8)
    sets = {"unchanged": None, "suppressed": NEURONS}
    first = ask_in_folder(model, task, sets, tmp_path, progress=False)
    assert len(scripted.asked) == 16 and not list(tmp_path.glob("*.state"))
    scripted.asked.clear()
    again = ask_in_folder(model, task, sets, tmp_path, progress=False)
    assert not scripted.asked
    for name in sets:
        pd.testing.assert_frame_equal(again[name].table, first[name].table)
    ask_in_folder(model, task, {"unchanged": None}, tmp_path, max_new_tokens=7, progress=False)
    assert len(scripted.asked) == 8
    ask_in_folder(model, task.limit(4), {"suppressed": NEURONS}, tmp_path, progress=False)
    assert len(scripted.asked) == 12


def test_saved_and_loaded(loaded, scripted, tmp_path):
    result = ask(loaded("llama", chat=True), questions())
    stored = EvaluationResult.load(result.save(tmp_path / "a.parquet"))
    assert stored.metadata == result.metadata and stored.accuracy(LANGUAGE).equals(result.accuracy(LANGUAGE))


def test_evaluate_asks_in_words_too(loaded, scripted, tmp_path):
    model, task = loaded("llama", chat=True), questions()
    result = evaluate(model, task, ablate=NEURONS, progress=False)
    assert (
        result.table["predicted"].tolist() == ["Comemos uvas.", "bread"] * 3
        and result.metadata["neurons"] == NEURONS.hash
    )
    labelled = evaluate(model, families.questions(3), ablate=NEURONS, progress=False)
    both = concat([labelled, result])
    assert set(both.accuracy().index) == {"small", "saq"} and both.accuracy(LANGUAGE)[
        "questions"
    ].tolist() == [3, 3]
    assert both.metadata["analysers"] == result.metadata["analysers"]
    stored = EvaluationResult.load(both.save(tmp_path / "both.parquet"))
    assert stored.accuracy(LANGUAGE)["questions"].tolist() == [3, 3]
    assert "P(answer) nan" not in str(both)


@pytest.fixture
def hub_of_blend(tmp_path):
    return write_saq(tmp_path / "hub")


def test_the_command_asks_region_by_region(hub_of_blend, tmp_path, monkeypatch):
    silent = lambda model, prompts, way, ends, *, max_new_tokens: [[] for _ in prompts]  # noqa: E731
    monkeypatch.setattr(short_answers, "generate", silent)
    neurons, folder = NEURONS.save(tmp_path / "n.parquet"), tmp_path / "out"
    printed = invoked(
        "answers", "ask", "--model", "toy", "--limit", 16, "--data-dir", hub_of_blend, "--output-dir", folder,
        "--neurons", neurons, "--random", neurons, "--max-new-tokens", 4, "--language", "en",
    )  # fmt: skip
    assert "Spain" in printed and "simplemma" in printed
    assert {p.name for p in folder.iterdir()} == {
        "unchanged.parquet", "suppressed.parquet", "random 0.parquet", "regions.csv", "comparison.csv",
    }  # fmt: skip
    regions = pd.read_csv(folder / "regions.csv")
    assert len(regions) == 16
    assert set(regions.columns) >= {"country", "language", "unchanged", "suppressed", "random 0"}


def test_random_without_neurons_is_an_error(tmp_path):
    with pytest.raises(NeuronError):
        invoked("answers", "ask", "--model", "toy", "--random", tmp_path / "r.parquet")
