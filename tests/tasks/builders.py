"""Small data sets in the true columns, written where a mirror of the Hub would have them."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path

from culnig_tl.tasks.blend_saq import PROMPTS
from culnig_tl.tasks.countries import COUNTRIES as BLEND_COUNTRIES
from culnig_tl.tasks.worldvaluesbench import COUNTRIES


def write_jsonl(path: Path, rows: Iterable[Mapping]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Iterable[Mapping]) -> Path:
    rows = list(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def readme(*configs: tuple[str, str, str]) -> str:
    """A data set's README on the Hub, from (configuration, split, file)."""
    parts = [
        f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {file}\n"
        for name, split, file in configs
    ]
    return f"---\nconfigs:\n{''.join(parts)}---\n"


def blend_row(
    number: int = 0, *, question: str = "Al-en-01", country: str = "South_Korea", **changed
) -> dict:
    """A row in the columns of BLEnD's multiple-choice file."""
    choices = {"A": f"rice {number}", "B": "tea", "C": "bread", "D": "soup"}
    options = "".join(f"{label}. {text}\n" for label, text in choices.items())
    instruction = (
        "Without any explanation, choose only one from the given alphabet choices(e.g., A, B, C). "
        'Provide as JSON format: {"answer_choice":""}'
    )
    row = {
        "MCQID": f"{question}_{country}_{number}",
        "ID": question,
        "country": country,
        "prompt": f"What do people eat in {country}? {instruction}\n\n{options}\nAnswer:",
        "choices": json.dumps(choices),
        "choice_countries": json.dumps({label: country for label in choices}),
        "answer_idx": "C",
    }
    return row | changed


def write_blend(
    root: Path,
    rows: Iterable[Mapping],
    topics: Mapping[str, str] | None = None,
    file: str = "evaluation/mc_data/mc_questions_file.jsonl",
) -> Path:
    """A mirror that holds BLEnD: its README, rows, topics, and South Korea's annotations."""
    folder = root / "nayeon212" / "BLEnD"
    folder.mkdir(parents=True, exist_ok=True)
    topics = topics or {"Al-en-01": "Food", "Al-en-02": "Education"}
    (folder / "README.md").write_text(
        readme(
            ("multiple-choice-questions", "test", file),
            ("short-answer-questions", "US", "data/questions_hf/US_questions.json"),
            ("annotations", "KR", "data/annotations_hf/South_Korea_data.json"),
        ),
        encoding="utf-8",
    )
    write_jsonl(folder / file, rows)
    (folder / "data" / "questions_hf").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "annotations_hf").mkdir(parents=True, exist_ok=True)
    questions = [
        {"ID": name, "Topic": topic, "Source": "", "Question": "?", "Translation": "?"}
        for name, topic in topics.items()
    ]
    (folder / "data" / "questions_hf" / "US_questions.json").write_text(
        json.dumps(questions), encoding="utf-8"
    )
    annotations = [
        {"ID": name, "question": f"무엇을 먹나요 {name}?", "en_question": "?", "annotations": [], "idks": {}}
        for name in topics
    ]
    (folder / "data" / "annotations_hf" / "South_Korea_data.json").write_text(
        json.dumps(annotations), encoding="utf-8"
    )
    return root


def culturalbench_rows(count: int = 12) -> list[dict]:
    """Rows in CulturalBench-Easy's columns, from three regions."""
    regions = ("United States", "Hong Kong", "South Korea")
    return [
        {
            "data_idx": number,
            "question_idx": number,
            "prompt_question": f"In {regions[number % 3]}, what is custom {number}?",
            "prompt_option_a": f"first {number}",
            "prompt_option_b": f"second {number}",
            "prompt_option_c": f"third {number}",
            "prompt_option_d": f"fourth {number}",
            "answer": "ABCD"[number % 4],
            "country": regions[number % 3],
        }
        for number in range(count)
    ]


def write_culturalbench(root: Path, rows: Iterable[Mapping]) -> Path:
    folder = root / "kellycyy" / "CulturalBench"
    write_csv(folder / "CulturalBench-Easy.csv", rows)
    (folder / "README.md").write_text(
        readme(("CulturalBench-Easy", "test", "CulturalBench-Easy.csv")), encoding="utf-8"
    )
    return root


def normad_rows(count: int = 30) -> list[dict]:
    """Rows in NormAd's columns, sorted by label as the Hub's are."""
    countries = ("united_states_of_america", "timor-leste", "türkiye", "bosnia_and_herzegovina", "iran")
    labels = [label for label in ("yes", "no", "neutral") for _ in range(count // 3)]
    return [
        {
            "ID": number,
            "Country": countries[number % len(countries)],
            "Background": "b",
            "Axis": "Etiquette",
            "Subaxis": "visiting",
            "Value": "v",
            "Rule-of-Thumb": "r",
            "Story": f"At dinner {number}, Ana left her shoes on. Was this acceptable?",
            "Explanation": "e",
            "Gold Label": label,
        }
        for number, label in enumerate(labels)
    ]


def write_normad(root: Path, rows: Iterable[Mapping]) -> Path:
    write_csv(root / "akhilayerukola" / "NormAd" / "normad_etiquette_final_data.csv", rows)
    return root


SCALES = {"Q1": (1, 4), "Q2": (0, 2), "Q50": (1, 10)}


def write_survey(
    folder: Path,
    people: Iterable[tuple[int, str]],
    answers: Iterable[Mapping],
    scales: Mapping[str, tuple[int, int]] = SCALES,
) -> Path:
    """The three files of WorldValuesBench."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {
        "B_COUNTRY": {
            "question": "In what country?",
            "use_case": "demographic",
            "answer_scale_min": "",
            "answer_scale_max": "",
            "answer_data_type": "non_ordinal",
        }
    }
    for name, (low, high) in scales.items():
        metadata[name] = {
            "question": f"On a scale of {low} to {high}, how about {name}?",
            "category": "Values",
            "use_case": "value",
            "answer_scale_min": low,
            "answer_scale_max": high,
            "answer_data_type": "ordinal",
        }
    (folder / "question_metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    with (folder / "full_demographic_qa.tsv").open("w", encoding="utf-8") as file:
        file.write(
            "D_INTERVIEW\tA_YEAR\tB_COUNTRY\n"
            + "".join(f"{number}\t2018\t{country}\n" for number, country in people)
        )
    with (folder / "full_value_qa.tsv").open("w", encoding="utf-8") as file:
        file.write("\t".join(["D_INTERVIEW", *scales]) + "\n")
        for row in answers:
            file.write("\t".join(str(row.get(column, "")) for column in ("D_INTERVIEW", *scales)) + "\n")
    return folder


SURVEY_NAMES = {"UK": "Great Britain", "USA": "United States"}


def survey(seed: int = 0, people: int = 400):
    """Interviews of the seven countries and Brazil, with some answers missing."""
    rng = random.Random(seed)
    countries = [*COUNTRIES, "Brazil"]
    asked = [(10_000 + i, SURVEY_NAMES.get(c := countries[i % 8], c)) for i in range(people)]
    answers = []
    for number, country in asked:
        row = {"D_INTERVIEW": number}
        for name, (low, high) in SCALES.items():
            if rng.random() < 0.9:
                row[name] = min(high, low + int(rng.random() ** (1 + len(country) % 3) * (high - low + 1)))
        answers.append(row)
    return asked, answers


TOPICS = {"Al-en-01": "Food", "Al-en-02": "Education", "Al-en-03": "Family"}
ANSWERS = [
    {"answers": ["tea", "green tea"], "en_answers": ["tea"], "count": 1},
    {"answers": ["uvas", " uva ", ""], "en_answers": ["grape", "grapes"], "count": 3},
    {"answers": ["nobody's"], "en_answers": ["nobody's"], "count": 0},
]


def write_saq(root: Path, *, topics=TOPICS, answers=ANSWERS, prompts=None, **changed) -> Path:
    """A mirror of BLEnD in which every region was asked the same; `changed` replaces a country's
    annotations."""
    write_blend(root, [], topics)
    folder = root / "nayeon212" / "BLEnD" / "data"
    for country in BLEND_COUNTRIES:
        name = {"Nigeria": "Northern_Nigeria", "USA": "US"}.get(country, country.replace(" ", "_"))
        rows = [
            {
                "ID": i,
                "question": f"{i} {country}?",
                "en_question": f"What of {i} in {country}?",
                "annotations": answers,
                "idks": {},
            }
            for i in topics
        ]
        rows = changed.get(country.replace(" ", "_"), rows)
        annotations = folder / "annotations_hf" / f"{name}_data.json"
        annotations.write_text(json.dumps(rows), encoding="utf-8")
        lines = prompts or [
            {"id": p, "English": f"In English, {p}: {{q}}\nAnswer:", "Translation": f"{country}, {p}: {{q}}"}
            for p in PROMPTS
        ]
        write_csv(folder / "prompts" / f"{name}_prompts.csv", lines)
    return root
