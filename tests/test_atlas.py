"""The atlas: its numbers are those of plain computations, its pages small, its folder nobody else's."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

import culnig_tl as ctl
from culnig_tl.data.neurons import Site
from culnig_tl.errors import CulnigError, NeuronError, StudyError
from culnig_tl.figures.prompts import plain_text
from culnig_tl.figures.theme import number
from culnig_tl.figures.values import per_cluster
from culnig_tl.method.closeup import question_scores, score_prompt
from culnig_tl.pages import closeups
from culnig_tl.pages.atlas import LARGEST, write_atlas
from culnig_tl.pages.closeups import unrepeated
from culnig_tl.run.pipeline import run_study
from culnig_tl.study.config import GENERAL, StudyConfig
from culnig_tl.study.opened import open_study
from culnig_tl.study.study import Study

from .helpers import invoked
from .studies import small_study

HOW = {"limit": 24, "alone": 6, "device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def study(checkpoints) -> Study:
    return small_study(str(checkpoints("llama")))


@pytest.fixture(scope="module")
def cloze(checkpoints, tmp_path_factory) -> Study:
    """In the cloze form, in its folder."""
    folder = tmp_path_factory.mktemp("atlas") / "cloze"
    config = StudyConfig(
        model=str(checkpoints("llama")),
        form="cloze",
        tasks=("miniculture", "minicommonsense"),
        reading="minireading",
        rival=None,
        top_mlp=0.1,
        top_attn=0.05,
        random_sets=1,
        limit=16,
        device="cpu",
    )
    run_study(config, folder=folder, progress=False)
    return Study.load(folder)


@pytest.fixture(scope="module")
def site(study, tmp_path_factory) -> Path:
    return write_atlas(study, tmp_path_factory.mktemp("site") / "atlas", **HOW).parent


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def table_of(site: Path) -> dict:
    return json.loads((site / "neurons.js").read_text().split("window.ATLAS = ")[1].rstrip().rstrip(";"))


def test_a_page_says_what_plain_computations_say(study, site):
    opened = open_study(study, device="cpu")
    general = study.neurons[GENERAL].top(1).iloc[0]
    key = (str(general["site"]), int(general["layer"]), int(general["neuron"]))
    text = text_of((site / "neurons" / f"{key[0]}-{key[1]}-{key[2]}.html").read_text(encoding="utf-8"))
    values = per_cluster(study.scores["neuron"], study.scores["control"])
    score = values[Site(key[0])][key[1], key[2]]
    pool = np.concatenate([v.ravel() for s, v in values.items() if s.pool == Site(key[0]).pool])
    assert f"score per cluster {number(score, '.3g')}" in text
    assert f"rank {1 + (pool > score).sum():,} of {len(pool):,}" in text

    few = unrepeated(next(t for t in opened.tasks if t.name == "miniculture"), HOW["alone"])
    with ctl.ablate(opened.model, ctl.NeuronSet.from_indices([key])):
        off = ctl.evaluate(opened.model, few, progress=False).table
    on = ctl.evaluate(opened.model, few, progress=False).table
    cost = 100 * float((on["p_answer"] - off["p_answer"]).mean())
    table = table_of(site)
    rows = list(zip(table["site"], table["layer"], table["neuron"]))
    assert table["cost0"][rows.index(key)] == pytest.approx(cost, rel=1e-2, abs=1e-4)

    wanted = [*study.neurons[GENERAL].keys(), *study.neurons["culture-specific"].keys()]
    assert set(rows) == set(wanted) and len(rows) == len(set(wanted))
    assert {path.name for path in (site / "neurons").iterdir()} == {
        f"{s}-{layer}-{i}.html" for s, layer, i in wanted
    }


def test_the_best_questions_are_kept_token_by_token(loaded, task):
    model = loaded("llama")
    neurons = ctl.NeuronSet.from_indices([("mlp.gate", 0, 3), ("mlp.gate", 0, 5), ("attn.v", 1, 2)])
    found = question_scores(model, task, neurons, keep=2, batch_size=2, progress=False)
    assert found.best is not None
    order = np.argsort(-found.weighted, axis=0, kind="stable")[:2].T
    np.testing.assert_array_equal(found.best.questions, order)
    for column, (site, layer, neuron) in enumerate(
        found.neurons.table[["site", "layer", "neuron"]].itertuples(index=False)
    ):
        at = order[column, 0]
        along = found.best.track(column, 0, len(found.token_texts[at]))
        plain = score_prompt(model, task[int(at)]).arrays[Site(site)][layer, :, neuron]
        np.testing.assert_allclose(along, plain, atol=1e-6 + 1e-3 * np.abs(plain).max())
        assert along.argmax() == found.tokens[at, column]
    usual = question_scores(model, task, neurons, batch_size=2, progress=False)
    assert usual.best is None
    np.testing.assert_array_equal(usual.scores, found.scores)


def test_pages_are_small_and_fetch_nothing(site):
    for name, content in contents(site).items():
        if name.endswith(".html"):
            text = content.decode()
            assert len(content) < LARGEST, name
            assert not re.findall(r'(?:src|href)="(?:https?:)?//', text)
            assert "<script" not in text or name == "index.html"


def test_long_questions_and_many_countries_leave_room(study, tmp_path, monkeypatch):
    monkeypatch.setattr("culnig_tl.pages.atlas.LARGEST", 14_000)
    folder = write_atlas(study, tmp_path / "atlas", top=3, **HOW).parent
    assert all(path.stat().st_size < 14_000 for path in (folder / "neurons").iterdir())


def test_identical_runs_give_identical_bytes_and_a_second_run_replaces_the_first(study, site, tmp_path):
    folder = write_atlas(study, tmp_path / "again", **HOW).parent
    assert contents(folder) == contents(site)
    notes, page = folder / "neurons" / "notes.html", folder / "neurons" / "mlp.gate-99-99.html"
    notes.write_text("mine")
    page.write_text("mine too")
    write_atlas(study, folder, top=2, **HOW)
    assert notes.read_text() == "mine" and page.read_text() == "mine too"
    assert len(list((folder / "neurons").iterdir())) == 2 + 2
    assert not (folder / "state").exists()


def test_nothing_of_others_is_overwritten(study, tmp_path):
    (tmp_path / "index.html").write_text("my own site")
    with pytest.raises(StudyError, match=r"index.html is not of an atlas"):
        write_atlas(study, tmp_path, **HOW)
    assert contents(tmp_path) == {"index.html": b"my own site"}


@pytest.mark.parametrize("name", ["neurons", "state", "index.html", "atlas.lock", "."])
def test_no_link_is_followed(name, study, tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "atlas"
    outside.mkdir()
    (outside / "index.html").write_text("my own site")
    (folder / name).parent.mkdir(exist_ok=True)
    if name == ".":
        folder.rmdir() if folder.exists() else None
    Path(f"{folder}/{name}".rstrip("/.")).symlink_to(outside)
    with pytest.raises(CulnigError, match="leads out of|is a link|is no lock"):
        write_atlas(study, folder, **HOW)
    assert contents(outside) == {"index.html": b"my own site"}


def test_a_killed_run_is_replaced(study, site, tmp_path, monkeypatch):
    real, calls = closeups.promoted_by, []

    def killed(*arguments, **options):
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(closeups, "promoted_by", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atlas(study, tmp_path / "atlas", **HOW)
    assert calls and not (tmp_path / "atlas" / "index.html").exists()
    monkeypatch.setattr(closeups, "promoted_by", real)
    folder = write_atlas(study, tmp_path / "atlas", **HOW).parent
    assert contents(folder) == contents(site)


def test_two_studies_of_one_shape_share_their_pages(study, cloze, tmp_path):
    folder = write_atlas({"letters": study, "<b>words": cloze}, tmp_path / "atlas", top=4, **HOW).parent
    table = table_of(folder)
    assert all(score is not None for score in (*table["score0"], *table["score1"]))
    for path in (folder / "neurons").iterdir():
        page = path.read_text(encoding="utf-8")
        assert page.count("<h3>letters</h3>") >= 5 and "&lt;b&gt;words" in page and "<b>" not in page
        assert "after the control" in page or "On none of them" in page
        assert len(page.encode()) < LARGEST
    assert "cost, letters" in (folder / "index.html").read_text(encoding="utf-8")


def test_studies_of_different_shapes_have_pages_of_their_own(study, checkpoints, tmp_path):
    other = small_study(str(checkpoints("gpt2")))
    folder = write_atlas({"a": study, "b": other}, tmp_path / "atlas", top=3, **HOW).parent
    table = table_of(folder)
    assert set(table["study"]) == {"a", "b"} and (folder / table["page"][-1]).is_file()
    assert table["page"][-1].startswith("neurons-2/") and table["score1"] == [None] * len(table["page"])


def test_what_cannot_be_shown(study, tmp_path):
    with pytest.raises(StudyError, match="one study, or two"):
        write_atlas({name: study for name in "abc"}, tmp_path / "atlas")
    with pytest.raises(NeuronError, match="limit must be at least 1"):
        write_atlas(study, tmp_path / "atlas", limit=0)


def test_the_command(cloze, tmp_path):
    said = invoked("atlas", cloze.folder, "--limit", 8, "--alone", 0, "--top", 2, "--output-dir", tmp_path)
    assert str(tmp_path / "index.html") in said
    (page, *_) = (tmp_path / "neurons").iterdir()
    assert "was not measured" in page.read_text(encoding="utf-8")


def test_tokens_become_the_text_that_they_stand_for():
    assert "".join(plain_text(["ĠSe", "oul", "Ċ", "Ã", "©"])) == " Seoul\né"
    assert plain_text(["▁caf", "<0xC3>", "<0xA9>"]) == [" caf", "", "é"]
    assert "".join(plain_text(["Which", "city", "?"])) == "Which city ?"
