"""The page of a study and the page of several: words and tables agree, names stay text, sizes stay small."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from culnig_tl.analyses.checkpoints import compare_checkpoints
from culnig_tl.cli import run_command
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.errors import StudyError
from culnig_tl.figures.gallery import MATRIX, figures_of, panels_of
from culnig_tl.method.selection import select_random
from culnig_tl.pages.comparison_page import write_comparison
from culnig_tl.pages.page import write_figures
from culnig_tl.pages.report import command, facts, neuron_table, write_report
from culnig_tl.run.pipeline import run_study
from culnig_tl.run.several import named_sources
from culnig_tl.study.config import GENERAL, SPECIFIC, StudyConfig
from culnig_tl.study.findings import change
from culnig_tl.study.study import Study

from .figures.builders import LARGE, make_scores, make_set
from .studies import CASES, TASKS, made_study

HOSTILE = "<script>alert('x')</script><b>&amp;\"]]>{{7*7}}"
VOID = {"meta", "link", "br", "input", "hr", "img"}


class Page(HTMLParser):
    """Headings, text outside scripts, cells of tables, JSON of scripts, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.text, self.cells, self.data, self.attributes = "", [], {}, []
        self._script: str | None = None
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append((int(tag[1]), ""))
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "script":
            self._script = dict(attributes).get("id")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if "script" in self.open:
            if self._script is not None:
                self.data[self._script] = self.data.get(self._script, "") + data
            return
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("h1", "h2", "h3", "h4"):
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for name in ("shown", "random does it", "both", "no rival"):
        study = made_study(**CASES[name])
        made[name] = (study, Page(write_report(study, folder / f"{name}.html").read_text(encoding="utf-8")))
    return made


def test_what_does_not_hold_stands_first(pages):
    for name, start in (
        ("random does it", "Nothing is shown about culture"),
        ("both", "It is not culture alone"),
        ("shown", "Suppressing"),
    ):
        _, page = pages[name]
        after = page.text.split("What was found", 1)[1].split()
        badge = "holds on this model" if name == "shown" else "does not hold"
        assert " ".join(after).startswith(f"{badge} {start}"), name


def test_words_and_tables_agree(pages):
    for study, page in pages.values():
        found = study.findings()
        assert found.headline() in page.text and found.measured() in page.text
        for task, drops in found.drops.items():
            at = next(
                i
                for i, cell in enumerate(page.cells)
                if cell.split()[:1] == [task] and "100.0" in page.cells[i + 1]
            )
            row = page.cells[at : at + 11]
            assert (
                row[3] == change(drops.layer.drop) and row[2] == f"{drops.layer.base - drops.layer.drop:.1f}"
            )
            assert row[5] == change(drops.layer.random_mean) and row[6] == change(drops.count.random_mean)
            if drops.rival is not None:
                assert row[7] == change(drops.rival.random_mean)
        # the sentence's numbers stand in the table, and in the accuracy table above the same task
        off = f"{found.drops['food'].layer.base - found.drops['food'].layer.drop:.1f}"
        assert (
            f"to {off}%" in found.measured()
            and page.cells.count(off) + sum(c.startswith(f"{off} ") for c in page.cells) >= 2
        )


def test_headings_language_and_landmarks(pages):
    for _, page in pages.values():
        levels = [level for level, _ in page.headings]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(below <= above + 1 for above, below in zip(levels, levels[1:])), page.headings
        assert ("html", "lang", "en") in page.attributes
        assert ("a", "href", "#main") in page.attributes and ("main", "id", "main") in page.attributes
        ids = [value for _, name, value in page.attributes if name == "id"]
        assert len(ids) == len(set(ids)), "an id occurs once"
        links = [value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
        assert set(links) <= set(ids)
        named = [
            v
            for _, n, value in page.attributes
            if n in ("aria-labelledby", "aria-describedby")
            for v in value.split()
        ]
        assert set(named) <= set(ids)


def test_one_page_without_network(pages, tmp_path):
    study, page = pages["shown"]
    text = write_report(study, tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(text) < 10_000_000 and text.count("plotly.js v") == 1
    assert not [v for _, n, v in page.attributes if n in ("src", "srcset", "action")]
    assert all(v.startswith(("#", "data:")) for _, n, v in page.attributes if n == "href")


def test_every_figure_that_there_is_data_for(pages):
    study, page = pages["shown"]
    names = [panel.name for panel, _ in panels_of(study)]
    assert (
        names
        == list(figures_of(study))
        == [
            "drops",
            "layer_distribution",
            "depth",
            "layer_heatmap",
            "country_accuracy",
            "country_heatmap",
            "country_scores",
            "score_histogram",
        ]
    )
    for name in names:
        figure = json.loads(page.data[f"{name}-data"])
        assert figure["data"] and "title" not in figure["layout"]
    bare = made_study(**CASES["shown"], specific=False)
    del bare.scores["control"]
    assert {"country_heatmap", "country_scores"} & set(figures_of(bare)) == set()


def test_files_of_figures_share_one_copy_of_plotly(tmp_path):
    write_figures(figures_of(made_study(**CASES["shown"])), tmp_path)
    pages = {path.name: path.stat().st_size for path in tmp_path.glob("*.html")}
    assert {"drops.html", "depth.html"} <= set(pages) and max(pages.values()) < 1_000_000
    assert (tmp_path / "plotly.min.js").stat().st_size > 1_000_000


def test_country_matrix_only_where_it_was_made(tmp_path, caplog):
    study = replace_folder(made_study(**CASES["shown"]), tmp_path)
    assert "country_drops" not in figures_of(study)
    study.neurons[SPECIFIC].save(tmp_path / "neurons" / f"{SPECIFIC}.parquet")
    drops = pd.DataFrame([[5.0, 1.0], [0.5, 4.0]], index=["Spain", "<b>"], columns=["Spain", "<b>"])
    (tmp_path / MATRIX).write_text(drops.to_csv())
    figure = figures_of(study)["country_drops"]
    assert (
        np.asarray(figure.data[0].z).tolist() == drops.to_numpy().tolist()
        and "&lt;b&gt;" in figure.layout.xaxis.ticktext
    )
    os.utime(tmp_path / MATRIX, (1, 1))
    assert "country_drops" not in figures_of(study) and "older than the study's neurons" in caplog.text


def replace_folder(study: Study, folder) -> Study:
    return Study(study.config, study.info, study.scores, study.neurons, study.results, folder)


def test_names_from_data_stay_text(tmp_path):
    tasks = {HOSTILE: True, "sense": False}
    study = made_study(
        own={HOSTILE: 0.5},
        random={},
        tasks=tasks,
        model=HOSTILE,
        countries=(HOSTILE, "Spain", "Iran"),
        data_dir=HOSTILE,
    )
    text = write_report(study, tmp_path / "hostile.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text and "{{7*7}}" in text
    page = Page(text)
    assert page.headings[0] == (1, f"Culture neurons of {HOSTILE}")
    assert HOSTILE in json.loads(page.data["neurons-data"])["set"]
    labels = json.loads(page.data["drops-data"])["layout"]["yaxis"]["ticktext"]
    assert labels[0].startswith("&lt;script&gt;alert"), (
        "Plotly reads tags in labels: names are escaped for it"
    )
    other = made_study(own={HOSTILE: 0.5}, random={}, tasks=tasks, model=HOSTILE)
    several = write_comparison(
        compare_checkpoints({HOSTILE: study, "plain": other}), tmp_path / "several.html"
    ).read_text(encoding="utf-8")
    assert "<script>alert" not in several and HOSTILE in Page(several).text


def test_table_holds_every_neuron_once(pages):
    study, page = pages["shown"]
    stored = pd.DataFrame(json.loads(page.data["neurons-data"]))
    assert list(stored.columns) == ["set", "site", "layer", "neuron", "score"]
    general = stored[stored["set"] == GENERAL]
    assert set(zip(general["site"], general["layer"], general["neuron"])) == study.neurons[GENERAL].keys()
    assert len(stored) == len(study.neurons[GENERAL]) + len(study.neurons[SPECIFIC])
    np.testing.assert_allclose(general["score"], study.neurons[GENERAL].table["score"], rtol=1e-5)
    unscored = replace_neurons(
        study,
        NeuronSet(study.neurons[GENERAL].table.drop(columns="score"), study.neurons[GENERAL].provenance),
    )
    assert neuron_table(unscored)["columns"]["score"][0] is None


def replace_neurons(study: Study, general: NeuronSet) -> Study:
    return Study(study.config, study.info, study.scores, {**study.neurons, GENERAL: general}, study.results)


def test_an_empty_set_and_a_single_cluster_give_a_page_all_the_same(tmp_path):
    study = made_study(own={}, random={}, rival={})
    general = study.neurons[GENERAL]
    study = replace_neurons(study, NeuronSet(general.table.iloc[:0], general.provenance))
    for result in study.results.values():
        result.table["cluster"] = "one"
    page = Page(write_report(study, tmp_path / "empty.html").read_text(encoding="utf-8"))
    assert "nothing is shown about culture" in page.text and "0 culture-general neurons (none)" in page.text
    assert "unknown" in page.cells and "nan" not in page.text.lower().split()
    several = Page(
        write_comparison(compare_checkpoints({"a": study, "b": study}), tmp_path / "two.html").read_text(
            encoding="utf-8"
        )
    )
    assert "1.000" in several.text and "depth-data" not in several.data


def test_a_large_model_gives_a_page_under_10_megabytes(tmp_path):
    study = made_study(**CASES["shown"])
    layers, countries = 48, ("Spain", "Iran", "China")
    study.info["layers"] = layers
    for name in study.scores:
        study.scores[name] = make_scores(layers, widths=LARGE, countries=countries, task="food")
    general = make_set(layers, count=14_000, widths=LARGE)
    own = pd.concat(
        [
            make_set(layers, count=4_000, widths=LARGE, seed=i).table.assign(country=f"country {i}")
            for i in range(8)
        ]
    )
    large = Study(
        study.config,
        study.info,
        study.scores,
        {GENERAL: general, SPECIFIC: NeuronSet(own, general.provenance)},
        study.results,
    )
    path = write_report(large, tmp_path / "large.html")
    assert path.stat().st_size < 10_000_000
    page = Page(path.read_text(encoding="utf-8"))
    assert (
        "14,000 culture-general neurons and 32,000 culture-specific ones, once per country; the first 40,000"
        " are here" in page.text
    )


def test_command_names_what_differs_from_the_defaults_of_its_model():
    study = made_study(**CASES["shown"], model="org/name", limit=7, data_dir="my data")
    assert (
        command(study)
        == "culnig-tl run --model org/name --revision abc123 --data-dir 'my data' --limit 7 --tasks"
        " food,sense,pairs --rival sense"
    )
    toy = Study(
        replace(study.config, model="toy", rival=None, top_mlp=0.01, data_dir=None),
        study.info,
        study.scores,
        study.neurons,
        study.results,
    )
    assert "--top-mlp 0.01" in command(toy), "the paper's value is not the toy's"
    assert "--rival none" in command(toy) and "--revision" not in command(toy)
    local = Study(
        replace(study.config, model="./org/name"), study.info, study.scores, study.neurons, study.results
    )
    assert "--revision" not in command(local)


# -------------------------------------------------------------------------------------------- the cloze form


@pytest.fixture(scope="module")
def cloze_study():
    """A whole study of the toy in the cloze form, on a few questions."""
    config = StudyConfig(
        model="toy",
        form="cloze",
        tasks=("miniculture", "minicommonsense"),
        reading="minireading",
        rival=None,
        limit=8,
        random_sets=2,
        top_mlp=0.05,
        top_attn=0.01,
        device="cpu",
    )
    return run_study(config, progress=False)


def text_of(study: Study, folder) -> str:
    """What the page of a study says."""
    page = Page(write_report(study, folder / "page.html").read_text(encoding="utf-8"))
    return " ".join(page.text.split()) + " " + " ".join(" ".join(cell.split()) for cell in page.cells)


def test_a_cloze_study_says_what_cloze_means_beside_its_accuracies(cloze_study, tmp_path):
    said = text_of(cloze_study, tmp_path)
    assert "answered in words (cloze)" in said
    assert "the model sees the question without its options" in said
    assert "less that after the control, the prompt without the question. P(answer) is" in said
    assert "right option's words are the likeliest of the options'" in said
    for wrong in ("right label", "whole vocabulary", "letter of", "prompt's tokens"):
        assert wrong not in said, wrong
    assert "normalised by 'unconditional' (asked for)" in dict(facts(cloze_study))["form"]
    assert "--form cloze" in said


@pytest.mark.parametrize(
    ("normalise", "says"), [("sum", "with nothing subtracted"), ("length", "per character")]
)
def test_p_answer_is_explained_as_it_was_normalised(normalise, says, cloze_study, tmp_path):
    study = replace(cloze_study, config=replace(cloze_study.config, normalise=normalise))
    said = text_of(study, tmp_path)
    assert f"{says}. P(answer) is" in said and f"The normalisation, {normalise}, removes" in said


def test_what_was_confirmed_by_letters_is_not_claimed_of_cloze(cloze_study, tmp_path):
    said = text_of(cloze_study, tmp_path)
    assert "trained to answer with letters" in said and "on all six seeds" not in said


def test_a_study_by_letters_speaks_of_labels(pages):
    for _, page in pages.values():
        said = " ".join(page.text.split())
        assert "the likeliest token of the whole vocabulary is the right label" in said
        assert "P(answer) is the probability of the right label" in said and "cloze" not in said


def test_several_studies_name_those_that_were_asked_in_words(tmp_path):
    studies = {"base": made_study(**CASES["shown"]), "words": made_study(**CASES["shown"], form="cloze")}
    studies["words"].info["form"] = {"form": "cloze", "why": "asked for"}
    found = compare_checkpoints(studies)
    page = Page(write_comparison(found, tmp_path / "mixed.html").read_text(encoding="utf-8"))
    said = " ".join(page.text.split())
    assert "right label (letters), or the right option's words" in said and "Asked so: words." in said
    plain = compare_checkpoints({"base": studies["base"], "other": studies["base"]})
    assert (
        "loze" not in Page(write_comparison(plain, tmp_path / "plain.html").read_text(encoding="utf-8")).text
    )


# -------------------------------------------------------------------------------------------- several studies


def test_the_page_of_the_embedded_model_says_that_its_effect_was_put_there(tmp_path):
    said = "trained to keep culture in one half of its neurons"
    for model, says in (("toy", True), ("org/name", False)):
        path = write_report(made_study(**CASES["shown"], model=model), tmp_path / "page.html")
        assert (said in path.read_text(encoding="utf-8")) is says


def test_page_of_several_studies(tmp_path):
    studies = {"base": made_study(**CASES["shown"]), "sft": made_study(**CASES["both"], seed=3)}
    found = compare_checkpoints(studies)
    page = Page(write_comparison(found, tmp_path / "compare.html").read_text(encoding="utf-8"))
    for study in studies.values():
        assert study.findings().headline() in page.text
    assert (
        f"{found.overlap().loc['base', 'sft']:.3f}" in page.text
        and f"{found.rank_correlation().loc['base', 'sft']:.3f}" in page.text
    )
    heat = json.loads(page.data["checkpoint-heatmap-data"])["data"][0]
    assert len(heat["x"]) == 2 and len(heat["y"]) == 4
    assert "base, unchanged" in page.cells and "sft, culture-general" in page.cells
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1 and all(below <= above + 1 for above, below in zip(levels, levels[1:]))
    assert "different shapes (" not in page.text


def test_overlap_by_chance_is_that_of_random_sets():
    study = made_study(**CASES["shown"])
    found = compare_checkpoints({"a": study, "b": made_study(**CASES["shown"], seed=1)})
    general, neuron = study.neurons[GENERAL], study.scores["neuron"]
    drawn = [select_random(general, neuron, seed=seed, match="count") for seed in range(40)]
    mean = np.mean([a.jaccard(b) for a, b in zip(drawn[::2], drawn[1::2])])
    assert found.chance_overlap().loc["a", "a"] == pytest.approx(mean, abs=0.03)


def test_what_cannot_be_compared_is_left_out_and_said(tmp_path):
    base = made_study(**CASES["shown"])
    deeper = made_study(**CASES["shown"])
    deeper.info["layers"] = 6
    general = make_set(6)
    deeper = replace_neurons(deeper, general)
    for seed, name in enumerate(deeper.scores):
        deeper.scores[name] = make_scores(6, task="food", seed=seed)
    other_questions = made_study(**CASES["shown"])
    other_questions.info["tasks"]["food"]["fingerprint"] = "another"
    for result in other_questions.results.values():
        result.metadata["fingerprints"]["food"] = "another"
    fewer = made_study(own={"food": 0.5}, random={}, tasks={"food": True})
    bare = made_study(own={"food": 0.5}, random={}, tasks=TASKS, sets=0)
    found = compare_checkpoints(
        {"base": base, "deeper": deeper, "other": other_questions, "fewer": fewer, "bare": bare}
    )
    overlap = found.overlap()
    assert (
        np.isnan(overlap.loc["base", "deeper"])
        and overlap.loc["deeper", "deeper"] == 1
        and overlap.loc["base", "other"] == 1
    )
    assert np.isnan(found.layers().loc[5, "base"]) and found.layers()["deeper"].sum() == len(general)
    said = " ".join(found.remarks())
    for part in (
        "different shapes",
        "Different questions of food were asked",
        "sense was asked of base, deeper, other, bare only",
        "bare has no random sets",
    ):
        assert part in said, part
    accuracy = found.accuracy().frame.set_index("setting")
    assert (
        np.isnan(accuracy.loc["other, unchanged", "food #food-f"])
        and accuracy.loc["other, unchanged", "food #anothe"] == 100
    )
    page = Page(write_comparison(found, tmp_path / "compare.html").read_text(encoding="utf-8"))
    assert all(remark in page.text for remark in found.remarks()) and "nothing is claimed" in page.text


def test_studies_are_called_by_what_tells_them_apart(tmp_path):
    for place in ("a/toy", "b/toy", "c/qwen"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "study.json").write_text("{}")
    a, b, c = (str(tmp_path / place) for place in ("a/toy", "b/toy", "c/qwen"))
    assert named_sources([a, b, c]) == {"a/toy": a, "b/toy": b, "qwen": c}
    assert named_sources([a, f"mine={b}", "new=org/model"]) == {"toy": a, "mine": b, "new": "org/model"}
    for wrong, message in (
        ([a], "two checkpoints"),
        ([a, str(tmp_path)], "holds no study"),
        ([a, f"toy={b}"], "two studies are called toy"),
        ([a, "x/y=org/model"], "becomes a folder"),
    ):
        with pytest.raises(StudyError, match=message):
            named_sources(wrong)


def test_report_and_compare_run_from_folders(tmp_path):
    for name, case in (("base", "shown"), ("sft", "both")):
        save(made_study(**CASES[case]), tmp_path / name)
    run_command(["report", str(tmp_path / "base")])
    assert (tmp_path / "base" / "report.html").is_file()
    studies = [str(tmp_path / name) for name in ("base", "sft")]
    run_command(["compare", *studies, "--output-dir", str(tmp_path / "both")])
    page = Page((tmp_path / "both" / "compare.html").read_text(encoding="utf-8"))
    assert ("a", "href", "../base/report.html") in page.attributes
    assert (tmp_path / "both" / "overlap.csv").is_file()


def save(study: Study, folder) -> None:
    """Writes what `Study.load` reads."""
    for name, scores in study.scores.items():
        scores.save(folder / "scores" / f"{name}.safetensors")
    for name, neurons in study.neurons.items():
        neurons.save(folder / "neurons" / f"{name}.parquet")
    for name, result in study.results.items():
        result.save(folder / "results" / f"{name}.parquet")
    record = {"config": asdict(study.config), "info": study.info, "version": "0"}
    (folder / "study.json").write_text(json.dumps(record))
