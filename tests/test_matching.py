"""Is the answer in what was said? Cases in eight languages, agreement with annotators, unexpected text."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culnig_tl.errors import MatchError
from culnig_tl.method.answers import analysers
from culnig_tl.method.answers.analysers import ANALYSERS, Analyser, normalise, words
from culnig_tl.method.answers.matching import Matcher, occurs, without_prompt
from culnig_tl.method.answers.variants import agreement, spelled_alike, variant_pairs
from culnig_tl.tasks.blend_saq import LANGUAGES

from .helpers import invoked
from .matching_cases import MISSED, NOT_SAID, SAID, TAKEN
from .tasks.builders import write_saq

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "hub"
MATCHER = Matcher()


def cases(table):
    return [
        pytest.param(language, said, answer, id=f"{language}-{i}")
        for language, rows in table.items()
        for i, (said, answer) in enumerate(rows)
    ]


@pytest.mark.parametrize(("language", "said", "answer"), cases(SAID))
def test_an_answer_in_a_sentence_is_found(language, said, answer):
    assert MATCHER.matches(said, [answer], language), (
        MATCHER.analyse(said, language),
        MATCHER.analyse(answer, language),
    )


@pytest.mark.parametrize(("language", "said", "answer"), cases(NOT_SAID))
def test_another_answer_is_not(language, said, answer):
    assert not MATCHER.matches(said, [answer], language), (
        MATCHER.analyse(said, language),
        MATCHER.analyse(answer, language),
    )


def test_every_language_with_an_analyser_has_cases():
    assert set(SAID) == set(NOT_SAID) == {"en", "es", "el", "fa", "id", "ar", "zh", "ko"}
    assert all(len(rows) >= 10 for rows in SAID.values())


@pytest.mark.parametrize(("language", "said", "answer"), cases(MISSED))
def test_what_it_is_known_to_miss(language, said, answer):
    """Where one of these is found one day, it belongs to SAID."""
    assert not MATCHER.matches(said, [answer], language)


@pytest.mark.parametrize(("language", "said", "answer"), cases(TAKEN))
def test_what_it_is_known_to_take_wrongly(language, said, answer):
    assert MATCHER.matches(said, [answer], language)


@pytest.mark.parametrize(
    ("language", "said", "answer"),
    [
        ("az", "İSTANBUL", "istanbul"),
        ("az", "QIZIL", "qızıl"),
        ("az", "qizil", "qızıl"),
        ("az", "buraxılış i̇mtahanı", "Buraxılış imtahanı"),
        ("az", "Uşaqlar parklarda oynayırlar.", "park"),
        ("ha", "Suna cin ƘOSAI da safe.", "kosai"),
        ("ha", "wasan ƙwallon ƙafa", "kwallon kafa"),
        ("ha", "jumma’a", "jumma'a"),
        ("am", "የፀሐይ ብርሃን", "ጸሀይ"),
        ("am", "መልስ፡ እንጀራ፣ ወጥ።", "እንጀራ"),
        ("am", "በዓል", "በአል"),
        ("as", "উত্তৰ: পিঠা, লাৰু।", "লাৰু"),
        ("as", "পক‌ৰি", "পকৰি"),
        ("as", "বিশ্ববিদ্যালয়", "বিশ্ববিদ্যালয়"),
        ("as", "১৫ বছৰ", "15"),
        ("su", "Urang Sunda resep dahar saté.", "sate"),
        ("su", "kué balok", "kue balok"),
        ("fa", "ك‌ي‌ك", "ک‌ی‌ک"),
        ("ar", "أحمـــد", "احمد"),
        ("en", "It starts at 08:00.", "8:00"),
        ("en", "10,000 people", "10000"),
        ("es", "a las 8,5", "8.5"),
        ("en", "ﬁsh and ｃｈｉｐｓ", "fish and chips"),
        ("en", "Valentine’s Day", "Valentine's day"),
        ("en", "CAFÉ", "cafe"),
        ("es", "el pingüino", "pinguino"),
    ],
)
def test_spelling_is_normalised(language, said, answer):
    assert MATCHER.matches(said, [answer], language), (
        MATCHER.analyse(said, language),
        MATCHER.analyse(answer, language),
    )


def test_letters_that_tell_words_apart_stay():
    assert not MATCHER.matches("año", ["ano"], "es")
    assert not MATCHER.matches("কলম", ["কালাম"], "as")  # vowel signs are no accents
    assert not MATCHER.matches("şəkər", ["sekar"], "az")


def test_one_of_several_answers_is_enough():
    assert MATCHER.matches("Comen pan.", ["uva", "pan"], "es")
    assert not MATCHER.matches("Comen pan.", [], "es")


# ----------------------------------------------------------------------------------- text that nobody expects


@pytest.mark.parametrize("language", list(ANALYSERS))
@pytest.mark.parametrize(
    "text",
    ["", " ", "\n\t", "!?…", "\u200f\u200e", "\u0301\u0301", "🎉🎉", "'", ".", "0", "\x00", "(((((", "﷽"],
)
def test_hardly_any_text(language, text):
    assert isinstance(MATCHER.matches(text, ["kimchi"], language), bool)
    assert not MATCHER.matches("kimchi", [""], language) and not MATCHER.matches("", ["kimchi"], language)


@pytest.mark.parametrize("language", list(ANALYSERS))
def test_ten_thousand_characters(language):
    mixed = "Kimchi 김치 월 饺子 كسكس کباب μουσακάς tortillas ዶሮ পিঠা İSTANBUL ƙosai. "
    MATCHER.analyse(mixed, language)  # reads the dictionary
    for text in (
        mixed * 200,
        "a" * 10_000,
        "ا" * 10_000,
        "月" * 10_000,
        "가" * 10_000,
        "1," * 5_000,
        "((" * 5_000,
        "é\u0301" * 5_000,
    ):
        began = time.process_time()
        MATCHER.matches(text[:10_000], ["kimchi", "no such answer", "a" * 50, text[:5_000] + "!x"], language)
        assert time.process_time() - began < 15


@pytest.mark.parametrize("language", [lang for lang in ANALYSERS if lang != "zh"])
def test_mixed_scripts_and_directions(language):
    assert MATCHER.matches("The answer: \u202bKIMCHI\u202c!", ["kimchi"], language)
    assert MATCHER.matches("‏الجواب (kimchi) هو‎", ["kimchi"], language)


def test_right_to_left_marks_do_not_count():
    assert MATCHER.matches("\u200fكرة\u200e القدم\u200f", ["كرة القدم"], "ar")
    assert MATCHER.matches("نان\u200f، پنیر", ["پنیر"], "fa")


@given(st.text(max_size=60), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_any_text_is_compared_and_holds_itself(said, answer):
    for language in ("en", "el", "fa", "ar", "az", "am", "su", "id"):
        assert MATCHER.matches(said, [answer], language) in (True, False)
        if MATCHER.analyse(said, language):
            assert MATCHER.matches(said, [said], language)


@given(
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=4),
)
@settings(deadline=None)
def test_occurs_is_a_run_of_whole_words(said, answer):
    runs = {"".join(said[i:j]) for i in range(len(said)) for j in range(i + 1, len(said) + 1)}
    assert occurs("".join(answer), said) == ("".join(answer) in runs)


@given(st.text(max_size=80))
@settings(deadline=None)
def test_words_are_normal_and_stay_so(text):
    found = words(normalise(text))
    assert all(word.split() == [word] for word in found)
    assert words(" ".join(found)) == found


def test_numbers():
    assert words("1,5 1.5 08:00 5,000 5.000 3.5km 007 0 . , 1. a.b 12.5.2020") == [
        "1.5", "1.5", "8", "0", "5000", "5000", "3.5km", "7", "0", "1", "a", "b", "12.5.2020",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- the prompt


PROMPT = "Read the question.\n\nQuestion: Do people eat grapes or soup at New Year?\nAnswer:"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (PROMPT, ""),
        (f"{PROMPT} grapes", "grapes"),
        (f"{PROMPT}\nsoup.\n{PROMPT}", "soup."),
        ("Question: Do people eat grapes or soup at New Year?\nAnswer: soup", "soup"),
        ("Do people eat grapes or soup at New Year?  Lentils.", "Lentils."),
        ("People eat grapes at New Year.", "People eat grapes at New Year."),
        ("", ""),
    ],
)
def test_a_repeated_prompt_is_no_answer(said, left):
    assert without_prompt(said, PROMPT) == left
    assert without_prompt(said, "") == said.strip()


def test_a_chinese_label_in_the_prompt():
    assert (
        without_prompt("问题：人们吃饺子吗？\n答案：汤圆", "阅读以下问题。\n\n问题：人们吃饺子吗？\n答案：")
        == "汤圆"
    )
    assert without_prompt("人们吃饺子吗？ 是", "问题：人们吃饺子吗？") == "是"


# ---------------------------------------------------------------------------------------------- the analysers


def test_one_table_for_all_thirteen_languages():
    assert set(ANALYSERS) == set(LANGUAGES.values()) and len(ANALYSERS) == 13
    for language, analyser in ANALYSERS.items():
        source = MATCHER.source(language)
        assert source.startswith(analyser.how) and source.count(".") >= len(analyser.packages)
    assert MATCHER.source("ha") == "light normalisation"


def test_a_users_own_analyser_in_a_line():
    vowels = Matcher(analysers={"ha": lambda text: ["".join(sign for sign in text if sign not in "aeiou")]})
    assert vowels.matches("kosai", ["kesi"], "ha") and not MATCHER.matches("kosai", ["kesi"], "ha")
    assert "lambda" in vowels.source("ha")
    assert vowels.matches("grapes", ["grape"], "en")  # the others are as they were
    new = Matcher(analysers={"fr": Analyser("words", (), lambda: str.split)})
    assert new.matches("du vin rouge", ["vin"], "fr") and new.source("fr") == "words"


def test_an_unknown_language_is_an_error():
    with pytest.raises(MatchError, match="no analyser for the language 'fr'.*bring your own"):
        MATCHER.matches("du vin", ["vin"], "fr")


@pytest.mark.parametrize(
    ("language", "package"),
    [("en", "simplemma"), ("es", "snowballstemmer"), ("zh", "jieba"), ("ko", "kiwipiepy")],
)
def test_without_the_extra_it_says_what_to_install(language, package, monkeypatch):
    real = importlib.import_module

    def missing(name, *rest):
        if name == package:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(analysers.importlib, "import_module", missing)
    with pytest.raises(MatchError, match=rf"needs {package}: pip install culnig-tl\[saq\]"):
        ANALYSERS[language].load()
    assert Matcher().matches("koko", ["koko"], "ha")


def test_a_version_that_is_not_installed_says_so_too():
    gone = Matcher(analysers={"en": Analyser("words", ("no-such-distribution",), lambda: str.split)})
    with pytest.raises(MatchError, match=r"needs no-such-distribution: pip install culnig-tl\[saq\]"):
        gone.source("en")


def test_chinese_is_quiet_and_leaves_and_reads_nothing_in_the_shared_temporary_folder(tmp_path):
    poison = tmp_path / "jieba.cache"
    poison.write_bytes(b"not a cache of ours")
    code = (
        "from culnig_tl.method.answers.matching import Matcher\n"
        "assert Matcher().matches('人们吃饺子。', ['饺子'], 'zh')\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [p.name for p in tmp_path.iterdir()] == [
        "jieba.cache"
    ] and poison.read_bytes() == b"not a cache of ours"
    assert tempfile.gettempdir() != str(tmp_path)


def test_nothing_is_fetched(monkeypatch):
    import socket

    def refuse(*rest):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for language in ("en", "zh", "ko"):  # a dictionary, a dictionary that is built, a model
        assert list(ANALYSERS[language].load()("a 1"))


# ------------------------------------------------------------------------------------------- annotators' word


@pytest.fixture
def small_hub(tmp_path):
    answers = [
        {"answers": ["grape", "grapes", "raisin"], "en_answers": ["grape"], "count": 2},
        {"answers": ["green grape"], "en_answers": [], "count": 1},
        {"answers": ["soup", "grape"], "en_answers": [], "count": 1},
    ]
    return write_saq(tmp_path, answers=answers)


def test_agreement_on_a_few_variants(small_hub):
    pairs = variant_pairs(data_dir=small_hub)["en"]
    both = 2 * 3  # two regions in English, three questions each
    assert (len(pairs.same), len(pairs.alike)) == (4 * both, both)
    # "grape" is in two groups: their oversight, and not two answers.
    assert sorted(set(pairs.different)) == [
        ("grape", "green grape"), ("grapes", "green grape"), ("green grape", "grape"),
        ("green grape", "soup"), ("raisin", "green grape"),
    ]  # fmt: skip
    row = agreement(data_dir=small_hub, languages=["en"]).loc["en"]
    assert (
        row["recall"] == pytest.approx(1 / 4) and row["recall_alike"] == 1
    )  # of four pairs, grape and grapes
    assert row["false_matches"] == pytest.approx(3 / 10)  # "green grape" holds "grape" (twice) and "grapes"
    assert row["precision"] == pytest.approx(2 / 5) and row["exact_recall"] == 0
    assert row["conflated"] == 0 and "simplemma" in row["analyser"]
    with pytest.raises(MatchError, match="'fr'"):
        agreement(data_dir=small_hub, languages=["fr"])


def test_spelled_alike():
    assert (
        spelled_alike("Grape", "grapes")
        and not spelled_alike("grape", "red grapes")
        and not spelled_alike("soup", "bread")
    )


def test_agreement_with_the_annotators(capsys):
    """On real answers. `culnig-tl answers check` prints the table."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    table = agreement(data_dir=SHARED)
    assert list(table.index) == list(dict.fromkeys(LANGUAGES.values()))
    assert (table["precision"] > 0.6).all() and (table["false_matches"] < 0.025).all()
    assert (table["recall"] > table["exact_recall"] + 0.04).all() and (
        table["recall_alike"] > table["exact_alike"] + 0.1
    ).all()
    assert (table.loc[["en", "es", "el", "ar", "fa"], "recall_alike"] > 0.55).all()
    assert table["conflated"].sum() < 0.1 * (2 * table["different"] * table["false_matches"]).sum()
    assert (table["same"] > 200).all() and (table["different"] > 2000).all()


def test_the_command_prints_the_table(small_hub, tmp_path):
    table = tmp_path / "t.csv"
    printed = invoked("answers", "check", "--data-dir", small_hub, "--languages", "en,ha", "--output", table)
    assert "recall" in printed and "light normalisation" in printed
    assert table.read_text().startswith("language,same")
