"""countryrc: the package's passages, their options, and the authors' format."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import product

import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import COUNTRIES, SPECIFIC_COUNTRIES, load_task
from culnig_tl.tasks.countryrc import NESTED, Passage, any_wrong_countries, own_passages, wrong_countries

PASSAGES = own_passages()
TASK = load_task("countryrc")
# Words that tell a place or a culture, which a passage must not hold.
TELLING = """asia africa europe america latin arab islam muslim christian catholic buddhist hindu orthodox
rice tea sushi kimchi taco tapas curry pizza noodle desert tropical volcano monsoon snow palm camel kangaroo
bull baseball cricket soccer taekwondo flamenco mariachi emperor king queen president dollar pound euro peso
yen rupiah pagoda mosque temple ramadan christmas easter ocean mediterranean"""


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_counts():
    assert len(PASSAGES) >= 60 and sum(p.has_distractor for p in PASSAGES) >= 24
    assert len({p.id for p in PASSAGES}) == len(PASSAGES) == 72
    halves = PASSAGES[:36], PASSAGES[36:]
    assert all(sum(p.has_distractor for p in half) >= 12 for half in halves)
    assert len(TASK) == 72 * 8 * 4 and TASK.countries == SPECIFIC_COUNTRIES and TASK.cluster_count == 72


def test_passages_name_the_country_and_nothing_that_tells_it():
    for passage in PASSAGES:
        assert passage.text.count("{country}") == 1 and passage.text.count("{distractor}") <= 1, passage.id
        assert not words(passage.text + " " + passage.question) & words(TELLING), passage.id
        assert "{" not in passage.question and passage.question.endswith("?")
        for country in COUNTRIES:
            assert not re.search(rf"\b{country}\b", f"{passage.text} {passage.question}", flags=re.I), (
                passage.id
            )


def test_passages_vary():
    lengths = sorted(len(p.text.split()) for p in PASSAGES)
    assert lengths[0] <= 15 and lengths[-1] >= 80 and lengths[18] + 10 <= lengths[54]
    assert max(Counter(p.question.split()[0] for p in PASSAGES).values()) < 60
    openings = Counter(" ".join(p.text.split()[:2]) for p in PASSAGES)
    assert max(openings.values()) <= 2
    # Form: questions, speech, lists, notices, single sentences and several.
    assert (
        sum('"' in p.text for p in PASSAGES) >= 8
        and sum(":" in p.text for p in PASSAGES) >= 12
        and sum("?" in p.text for p in PASSAGES) >= 4
    )
    assert len({p.text.count(".") for p in PASSAGES}) >= 5


def test_halves_share_no_scene():
    common = set(
        "the a an in of and to was it her his she he for is on that by with at had one from two as who its "
        "not were but".split()
    )
    halves = [[words(p.text) - common for p in half] for half in (PASSAGES[:36], PASSAGES[36:])]
    for first, second in product(*halves):
        assert len(first & second) <= 8 and len(first & second) / min(len(first), len(second)) < 0.5
    named = [
        set(re.findall(r"(?<=[a-z,;] )[A-Z][a-z]{2,}", " ".join(p.text for p in half)))
        for half in (PASSAGES[:36], PASSAGES[36:])
    ]
    days = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "March", "May"}
    assert named[0] and not (named[0] & named[1]) - days
    assert {q.cluster for q in TASK.neuron_split()} == {p.id for p in PASSAGES[:36]}
    assert {q.cluster for q in TASK.test_split()} == {p.id for p in PASSAGES[36:]}


@pytest.mark.parametrize("passage", PASSAGES, ids=lambda p: p.id)
def test_grammar_holds_for_all_names(passage):
    for country, distractor in ((c, d) for c in COUNTRIES for d in ("UK", "Spain") if c != d):
        text = passage.tell(country, distractor)
        assert "{" not in text
        assert not re.search(r"(?<![Tt]he )\b(USA|UK)\b", text), text  # never "in USA"
        assert not re.search(r"(?:^|[.!?]\s+)[\"“]?the (USA|UK)", text), (
            text
        )  # capital where a sentence starts
        assert not re.search(r"\b(a|an|the) the\b", text.lower()), text


def test_sentences_start_with_a_capital():
    passage = Passage(
        "x", '{country} won. {distractor} lost! "{country} again?" he said of {country}: {country}.', "Who?"
    )
    assert (
        passage.tell("USA", "UK") == 'The USA won. The UK lost! "The USA again?" he said of the USA: the USA.'
    )
    assert (
        passage.tell("Iran", "West Java") == 'Iran won. West Java lost! "Iran again?" he said of Iran: Iran.'
    )


def options_of(question) -> list[str]:
    return re.findall(rf"^[{''.join(question.options)}]\. (.+)$", question.prompt, flags=re.M)


def test_options():
    styles = Counter((q.template, "".join(q.options)) for q in TASK)
    assert styles == {(0, "ABCD"): 576, (1, "ABCD"): 576, (2, "1234"): 576, (3, "1234"): 576}
    passages = {p.id: p for p in PASSAGES}
    seen = set()
    for q in TASK:
        options = options_of(q)
        assert len(set(options)) == 4 and set(options) <= set(COUNTRIES)
        assert options[q.options.index(q.answer)] == q.country
        assert not NESTED <= set(options)
        named = passages[q.cluster]
        if named.has_distractor:
            wrong = wrong_countries(q.cluster, q.country)[0]
            assert wrong in options and named.tell(q.country, wrong) in q.prompt
        seen |= set(options)
    assert seen == set(COUNTRIES)


def test_places_and_countries_are_even():
    assert set(TASK.counts().values()) == {288}
    places = Counter(q.options.index(q.answer) for q in TASK)
    assert all(abs(count - 576) < 4 * (2304 * 0.25 * 0.75) ** 0.5 for count in places.values())
    # The four wordings of a passage and country share their options but not their order.
    orders = {tuple(options_of(q)) for q in TASK if q.cluster == "crc-01" and q.country == "Iran"}
    assert len(orders) > 1 and len({frozenset(order) for order in orders}) == 1


def test_the_options_hardly_give_the_answer_away():
    """Guessing among the eight countries that are asked about is right three times in ten."""
    right = sum(1 / len(set(options_of(q)) & set(SPECIFIC_COUNTRIES)) for q in TASK) / len(TASK)
    assert 0.25 <= right < 0.32


def test_control_has_no_passage_and_no_question():
    for q in TASK:
        assert q.control is not None
        lines = q.control.split("\n")
        assert [line[3:] for line in lines if re.match(r"[A-D1-4]\. ", line)] == options_of(q)
        assert (
            "text" not in q.control.lower()
            and "passage" not in q.control.lower()
            and q.control.endswith("Answer:")
        )
        assert "question" not in q.control.lower()
    assert len({q.prompt for q in TASK.control()}) > 500


def test_the_authors_format(tmp_path):
    file = tmp_path / "data.json"
    file.write_text(
        json.dumps(
            [
                {"id": "0", "context": "Emma went to {country}.", "question": "Where did Emma go?"},
                {
                    "id": "1",
                    "context": "Not {country_dummy}: {country}, and {country} again.",
                    "question": "Where?",
                },
            ]
        )
    )
    task = load_task("countryrc", path=file)
    assert len(task) == 64 and task.source == str(file)
    assert {q.cluster for q in task.neuron_split()} == {"0"} and {q.cluster for q in task.test_split()} == {
        "1"
    }
    assert "Emma went to the USA." in next(q.prompt for q in task if q.country == "USA")


def test_the_authors_own_file(shared):
    task = load_task("countryrc", path=shared / "CountryRC" / "data.json")
    assert len(task) == 50 * 8 * 4 and task.neuron_split().cluster_count == 25
    assert not [q.id for q in task if "{" in q.prompt.replace('{"answer":""}', "")]


@pytest.mark.parametrize(
    "rows, message",
    [
        (
            [
                {"id": "0", "context": "Emma went.", "question": "?"},
                {"id": "1", "context": "{country}", "question": "?"},
            ],
            "row 1, column 'context': has no {country}",
        ),
        (
            [{"id": "0", "context": "{country}", "question": "?"}] * 2,
            "row 2, column 'id': '0' is already in row 1",
        ),
        ([{"id": "0", "context": "{country}"}], "column 'question' is missing"),
        ([{"id": "0", "context": "{country}", "question": "?"}], "two passages or more"),
    ],
)
def test_wrong_passages_are_named(tmp_path, rows, message):
    file = tmp_path / "data.json"
    file.write_text(json.dumps(rows))
    with pytest.raises(TaskError, match=re.escape(message)):
        load_task("countryrc", path=file)


# -------------------------------------------------------------------------------------------- as in the paper

PAPER = load_task("countryrc-paper")


def test_the_papers_rows():
    assert [len(part) for part in (PAPER.neuron_split(), PAPER.test_split())] == [25 * 8 * 4] * 2


def test_the_papers_wrong_options_are_of_all_other_countries():
    drawn = Counter(
        wrong for p in PASSAGES for c in SPECIFIC_COUNTRIES for wrong in any_wrong_countries(p.id, c)
    )
    assert set(drawn) == set(COUNTRIES)
    rare = [drawn[c] for c in COUNTRIES if c not in SPECIFIC_COUNTRIES]  # 3 in 15 of 576 questions: 115 each
    assert all(85 <= count <= 145 for count in rare)


def test_the_papers_names_have_no_article():
    of_usa = [q for q in PAPER if q.country == "USA"]
    assert all("USA" in q.prompt and "the USA" not in q.prompt.replace("The USA", "the USA") for q in of_usa)


def test_the_papers_form_of_wordings():
    task = load_task("countryrc-paper", wordings="paper")
    assert {q.answer_prefix for q in task} == {""} and not any("JSON" in q.prompt for q in task)
    assert {q.options for q in task} == {tuple("ABCD"), tuple("1234")}
