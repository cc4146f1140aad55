"""worldvaluesbench, on generated files in the survey's columns."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections import Counter

import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import load_task
from culnig_tl.tasks.worldvaluesbench import COUNTRIES

from .builders import SCALES, SURVEY_NAMES, survey, write_survey


def literal(asked, answers, countries=COUNTRIES, fewest=10):
    """Labels and divergences with Python loops."""
    of = {number: {v: k for k, v in SURVEY_NAMES.items()}.get(country, country) for number, country in asked}
    counts = {(country, name): Counter() for country in ("", *countries) for name in SCALES}
    for row in answers:
        for name in SCALES:
            if name in row:
                counts["", name][row[name]] += 1
                if of[row["D_INTERVIEW"]] in countries:
                    counts[of[row["D_INTERVIEW"]], name][row[name]] += 1
    out = {}
    for (country, name), counter in counts.items():
        total, world = sum(counter.values()), counts["", name]
        if country and total >= fewest:
            label = min(value for value, count in counter.items() if count == max(counter.values()))
            kl = sum(
                n / total * math.log(n / total / (world[v] / sum(world.values()))) for v, n in counter.items()
            )
            out[country, name] = (str(label), kl)
    return out


def test_labels_are_the_most_frequent_answers(tmp_path):
    asked, answers = survey()
    task = load_task("worldvaluesbench", path=write_survey(tmp_path, asked, answers))
    expected = literal(asked, answers)
    assert {(q.country, q.cluster): q.answer for q in task} == {
        key: label for key, (label, _) in expected.items()
    }
    assert (
        len(task) == 4 * len(expected)
        and task.countries == tuple(sorted(COUNTRIES))
        and "Spain" not in task.countries
    )
    for q in task:
        low, high = SCALES[q.cluster]
        assert q.options == tuple(str(value) for value in range(low, high + 1)) and q.group == "Values"
        assert f"from {low} to {high}" in q.prompt or f"between {low} and {high}" in q.prompt
        assert q.system and ("the USA" in q.system if q.country == "USA" else q.country in q.system)
    assert {(q.template, q.system.split()[0]) for q in task} == {
        (0, "You"),
        (1, "You"),
        (2, "Answer"),
        (3, "Answer"),
    }
    assert (
        len({q.prompt for q in task if q.cluster == "Q1" and q.country == "Iran"}) == 2
    )  # 2 system x 2 user prompts


def test_the_neuron_split_has_the_largest_divergence(tmp_path, monkeypatch):
    from culnig_tl.tasks import worldvaluesbench

    monkeypatch.setattr(worldvaluesbench, "NEURON_QUESTIONS", 1)
    asked, answers = survey(3)
    task = load_task("worldvaluesbench", path=write_survey(tmp_path, asked, answers))
    expected = literal(asked, answers)
    for country in COUNTRIES:
        neuron = {q.cluster for q in task.neuron_split() if q.country == country}
        assert neuron == {max(SCALES, key=lambda name: expected[country, name][1])}, country
    assert worldvaluesbench.NEURON_QUESTIONS == 1 and task.neuron_split().cluster_count >= 1


def test_a_question_needs_ten_answers_of_a_country(tmp_path):
    asked, answers = survey()
    iranians = [number for number, country in asked if country == "Iran"]
    for row in answers:
        if row["D_INTERVIEW"] in iranians[9:]:
            row.pop("Q2", None)
        elif row["D_INTERVIEW"] in iranians[:9]:
            row["Q2"] = 1
    task = load_task("worldvaluesbench", path=write_survey(tmp_path, asked, answers))
    assert {q.cluster for q in task if q.country == "Iran"} == {"Q1", "Q50"}
    assert {q.cluster for q in task if q.country == "China"} == {"Q1", "Q2", "Q50"}


def test_files_lie_in_the_data_folder_or_its_full_folder(tmp_path):
    folder = write_survey(tmp_path / "WorldValuesBench", *survey())
    first = load_task("worldvaluesbench", data_dir=tmp_path)
    (folder / "full").mkdir()
    for name in ("full_demographic_qa.tsv", "full_value_qa.tsv"):
        (folder / name).rename(folder / "full" / name)
    assert load_task("worldvaluesbench", data_dir=tmp_path).fingerprint == first.fingerprint
    (folder / "full" / "full_value_qa.tsv").unlink()
    with pytest.raises(TaskError, match="WorldValuesBench has no full_value_qa.tsv"):
        load_task("worldvaluesbench", data_dir=tmp_path)
    with pytest.raises(TaskError, match="needs files that cannot be downloaded"):
        load_task("worldvaluesbench")


def test_answers_are_scored_by_alignment(tmp_path):
    assert load_task("worldvaluesbench", path=write_survey(tmp_path, *survey())).metric == "alignment"


def test_no_control(tmp_path):
    task = load_task("worldvaluesbench", path=write_survey(tmp_path, *survey()))
    with pytest.raises(TaskError, match="offers no control"):
        task.control()


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda asked, answers: answers[4].update(Q1="often"),
            "full_value_qa.tsv, row 5, column 'Q1': 'often' is no number",
        ),
        (
            lambda asked, answers: answers[4].update(Q1=2.5),
            "full_value_qa.tsv, row 5, column 'Q1': 2.5 is no whole number",
        ),
        (
            lambda asked, answers: answers[4].update(D_INTERVIEW=answers[1]["D_INTERVIEW"]),
            "full_value_qa.tsv, row 5, column 'D_INTERVIEW': '10001' is there twice",
        ),
        (
            lambda asked, answers: answers[4].update(D_INTERVIEW=7),
            "full_value_qa.tsv, row 5, column 'D_INTERVIEW': '7' is not in full_demographic_qa.tsv",
        ),
        (lambda asked, answers: answers.clear(), "full_value_qa.tsv: the file is empty"),
        (
            lambda asked, answers: asked.__setitem__(2, (10_002, "")),
            "full_demographic_qa.tsv, row 3, column 'B_COUNTRY': is empty",
        ),
        (
            lambda asked, answers: asked.__setitem__(slice(None), [(n, "Brazil") for n, _ in asked]),
            "full_demographic_qa.tsv, column 'B_COUNTRY': no interview is from China",
        ),
    ],
)
def test_wrong_survey_files_are_named(tmp_path, change, message):
    asked, answers = survey(people=80)
    change(asked, answers)
    with pytest.raises(TaskError, match=re.escape(message)):
        load_task("worldvaluesbench", path=write_survey(tmp_path, asked, answers))


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda table: table["Q1"].update(answer_scale_max="four"),
            "row 'Q1', column 'answer_scale_max': must be a whole number",
        ),
        (
            lambda table: table["Q1"].update(answer_scale_max=1),
            "row 'Q1', column 'answer_scale_max': the scale is empty",
        ),
        (lambda table: table["Q1"].update(question=""), "row 'Q1', column 'question': must be text"),
        (lambda table: table.update(Q9=table["Q1"]), "full_value_qa.tsv: column 'Q9' is missing"),
        (lambda table: [table.pop(name) for name in SCALES], "no question has use_case 'value'"),
        (lambda table: table.update(Q1=3), "row 'Q1': must be a JSON object"),
    ],
)
def test_wrong_metadata_is_named(tmp_path, change, message):
    folder = write_survey(tmp_path, *survey(people=80))
    table = json.loads((folder / "question_metadata.json").read_text())
    change(table)
    (folder / "question_metadata.json").write_text(json.dumps(table))
    with pytest.raises(TaskError, match=re.escape(message)):
        load_task("worldvaluesbench", path=folder)


def test_answers_off_the_scale_are_left_out(tmp_path, caplog):
    asked, answers = survey()
    expected = {
        q.id: q.answer
        for q in load_task("worldvaluesbench", path=write_survey(tmp_path / "a", asked, answers))
    }
    for row in answers[::3]:
        row["Q1"] = -2 if row["D_INTERVIEW"] % 2 else 9
    cleaned = [{k: v for k, v in row.items() if k != "Q1" or 1 <= v <= 4} for row in answers]
    dirty = load_task("worldvaluesbench", path=write_survey(tmp_path / "b", asked, answers))
    clean = load_task("worldvaluesbench", path=write_survey(tmp_path / "c", asked, cleaned))
    assert dirty.fingerprint == clean.fingerprint and "above their question's scale" in caplog.text
    assert set(expected) == {q.id for q in dirty}


def test_the_real_questions(shared, tmp_path):
    from culnig_tl.tasks.worldvaluesbench import read_metadata

    questions = read_metadata(shared / "WorldValuesBench" / "question_metadata.json")
    assert (
        len(questions) == 239
        and {q.id[0] for q in questions} == {"Q"}
        and max(q.maximum for q in questions) == 10
    )


@pytest.mark.perf
def test_a_survey_of_the_true_size(tmp_path):
    """93,278 interviews x 239 questions: seconds, and under 2 GiB, in a process of its own."""
    import numpy as np

    rng = np.random.default_rng(0)
    scales = {f"Q{i}": (1, (4, 10, 2, 5)[i % 4]) for i in range(1, 240)}
    table = np.stack([rng.integers(1, high + 1, 93_278) for _, high in scales.values()], axis=1).astype(str)
    table[rng.random(table.shape) < 0.05] = ""
    people = [(i, ("Brazil", *COUNTRIES)[i % 8] if i % 8 else "Great Britain") for i in range(93_278)]
    folder = write_survey(tmp_path, people, [], scales)
    with (folder / "full_value_qa.tsv").open("a") as file:
        for number, row in enumerate(table):
            file.write(f"{number}\t" + "\t".join(row) + "\n")
    del table
    code = (
        "import re, time; from culnig_tl.tasks import load_task; start = time.time(); "
        f"task = load_task('worldvaluesbench', path={str(folder)!r}); "
        "status = open('/proc/self/status').read(); "  # getrusage would count the parent's memory before exec
        "print(len(task), time.time() - start, int(re.search(r'VmHWM:\\s+(\\d+)', status)[1]) / 2**20)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    print(f"worldvaluesbench, 93,278 x 239 answers: {out[1]} s, {out[2]} GiB")
    count, seconds, gib = int(out[0]), float(out[1]), float(out[2])
    assert count == 239 * 7 * 4 and seconds < 30 and gib < 2, (seconds, gib)
