"""What a text is cut into before answers are compared: one analyser per language, in one table.

An analyser is a function from a text to its words in a form that inflection, case and spelling do not change:
lemmas, stems, or the words themselves after light normalisation. To bring your own:

    Matcher(analysers={"ha": my_stems})  # any function from a text to a list of words
    ask_short_answers(model, task, analysers={"ha": my_stems})

Nothing is downloaded at run time: dictionaries and models are part of the packages, from
``pip install culnig-tl[saq]``.
"""

from __future__ import annotations

import importlib
import itertools
import logging
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from ...errors import MatchError

Analyse = Callable[[str], Sequence[str]]
"""From a text to its words in their base form, in order."""


@dataclass(frozen=True)
class Analyser:
    """How the texts of a language are analysed, and with what."""

    how: str
    """In a few words, e.g. "lemmas"."""
    packages: tuple[str, ...]
    """Packages that it needs; none for light normalisation."""
    load: Callable[[], Analyse]
    """Imports what it needs and reads its dictionary."""

    @property
    def source(self) -> str:
        """What is used, with installed versions: ``lemmas (simplemma 2.0.0)``."""
        return (
            f"{self.how} ({', '.join(f'{name} {version(name)}' for name in self.packages)})"
            if self.packages
            else self.how
        )


@cache
def loaded(analyser: Analyser) -> Analyse:
    """Its function; dictionaries are read once per process."""
    return analyser.load()


# ------------------------------------------------------------------------------------------------------ words

_APOSTROPHES = dict.fromkeys(map(ord, "'’‘ʼʻ`´ʹ"))
_TATWEEL = "\u0640"


def normalise(text: str) -> str:
    """NFKC, decimal digits of every script as 0 to 9, without direction marks, joiners and other invisible
    signs."""
    plain = unicodedata.normalize("NFKC", text)
    return plain if plain.isascii() else "".join(_sign(sign) for sign in plain)


def _sign(sign: str) -> str:
    category = unicodedata.category(sign)
    if category == "Nd":
        return str(unicodedata.decimal(sign))
    return "" if category == "Cf" or sign == _TATWEEL else sign


def words(text: str) -> list[str]:
    """Runs of letters, marks and numbers; anything else separates them, and apostrophes are dropped.

    A number is one word: 1,5 is 1.5, 08 is 8, and 5,000 and 5.000 are 5000.
    """
    padded = f" {text.translate(_APOSTROPHES)} "
    cut = "".join(
        (
            sign
            if unicodedata.category(sign)[0] in "LMN"
            else "."
            if sign in ".," and before.isdecimal() and after.isdecimal()
            else " "
        )
        for before, sign, after in zip(padded, padded[1:], padded[2:])
    )
    return [_number(word) if word[0].isdecimal() else word for word in cut.split()]


def _number(word: str) -> str:
    whole, *groups = word.split(".")
    if not all(part.isdecimal() for part in (whole, *groups)):
        return word
    thousands = all(len(group) == 3 for group in groups)
    return ("" if thousands else ".").join([whole.lstrip("0") or "0", *groups])


def without_marks(text: str, kept: str = "") -> str:
    """The text without accents and other marks over or under a letter, except those that are `kept`."""
    if text.isascii():
        return text
    apart = unicodedata.normalize("NFD", text)
    return unicodedata.normalize(
        "NFC", "".join(sign for sign in apart if unicodedata.category(sign) != "Mn" or sign in kept)
    )


def _without(listed: list[str], dropped: frozenset[str]) -> list[str]:
    """The words without those that carry no meaning; all of them where no other is left."""
    return [word for word in listed if word not in dropped] or listed


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MatchError(
            f"comparing answers in this language needs {name}: pip install culnig-tl[saq]"
        ) from error


# -------------------------------------------------------------------------------------------------- languages

_ARTICLES = {
    "en": frozenset({"the", "a", "an"}),
    "es": frozenset({"el", "la", "los", "las", "lo", "un", "uno", "una", "unos", "unas"}),
    "el": frozenset(
        word.casefold()
        for word in (
            "ο η το οι τα τον την του της των τους τις στο στη στην στον στα στους στις ενας μια ενα".split()
        )
    ),
}
"""As they are without accents, folded."""
_TILDE = "\u0303"  # año and ano are two words
_ARABIC = str.maketrans(
    {"أ": "ا", "إ": "ا", "آ": "ا", "ٱ": "ا", "ى": "ي", "ة": "ه", "ؤ": "و", "ئ": "ي", "ک": "ك", "ی": "ي"}
)
_ARABIC_ARTICLES = ("وال", "بال", "فال", "كال", "ال", "لل")
"""The article, with the conjunctions and prepositions that are written in one with it."""
_PERSIAN = str.maketrans(
    {"ي": "ی", "ى": "ی", "ك": "ک", "ة": "ه", "ۀ": "ه", "أ": "ا", "إ": "ا", "ؤ": "و", "ئ": "ی", "\u200c": " "}
)
_PERSIAN_ENDINGS = frozenset("ها های هایی هایش هایشان هایم ای ام ات اش مان تان شان می نمی تر ترین را".split())
"""Endings and prefixes that the zero-width non-joiner, or a space, sets apart from their word."""
_AZERBAIJANI = str.maketrans({"İ": "i", "I": "ı", "\u0307": None})
_HAUSA = str.maketrans("ɓɗƙƴ", "bdky")
_ASSAMESE = str.maketrans({"র": "ৰ"})  # Bengali's ra
_KOREAN_ENDINGS = frozenset({"XSN", "XSV", "XSA", "VCP", "VX"})
"""Kiwi's tags of suffixes, of the copula and of auxiliary verbs; particles start with J, verb endings with E,
signs with S."""
_KOREAN_WRITTEN = frozenset({"SL", "SH", "SN"})
"""Latin, Chinese characters, numbers."""


def _homophones() -> dict[int, str]:
    """Amharic letters that sound alike and replace each other in writing.

    ሐ ኀ ኸ as ሀ, ሠ as ሰ, ዐ as አ, ፀ as ጸ, and ሃ as ሀ, ኣ as አ.
    """
    rows = {"ሐ": "ሀ", "ኀ": "ሀ", "ኸ": "ሀ", "ሠ": "ሰ", "ዐ": "አ", "ፀ": "ጸ"}
    same = {ord(many) + vowel: chr(ord(one) + vowel) for many, one in rows.items() for vowel in range(7)}
    for letter, first in (("ሃ", "ሀ"), ("ኣ", "አ")):
        same.update({code: first for code, one in same.items() if one == letter} | {ord(letter): first})
    return same


def _light(
    finish: Callable[[str], str] = str, *, prepare: Callable[[str], str] = str
) -> Callable[[], Analyse]:
    """NFKC and case folding; `finish` is done to every word."""

    def analyse(text: str) -> list[str]:
        return [finish(word) for word in words(normalise(prepare(text)).casefold())]

    return lambda: analyse


def _lemmas(
    language: str,
    *,
    snowball: str | None = None,
    kept: str = "",
    start: int = 0,
    prepare: Callable[[str], str] = str,
) -> Callable[[], Analyse]:
    """simplemma's lemmas without articles; then their Snowball stems, which unite what the dictionary lacks.

    A lemma that does not begin with the word's first `start` letters is not taken.
    """

    def load() -> Analyse:
        lemmatise = _needed("simplemma").lemmatize
        stem = _stemmer(snowball) if snowball else str
        articles = _ARTICLES.get(language, frozenset())

        def base(word: str) -> str:
            lemma, plain = (
                without_marks(form.casefold(), kept) for form in (lemmatise(word, lang=language), word)
            )
            return lemma if lemma[:start] == plain[:start] else plain

        def analyse(text: str) -> list[str]:
            parts = [part for word in words(normalise(prepare(text)).lower()) for part in words(base(word))]
            return [stem(part) for part in _without(parts, articles)]

        return analyse

    return load


def _once(analyse: Callable[[], Analyse]) -> Callable[[], Analyse]:
    """A word that is said twice in a row, as Indonesian plurals are (anak-anak), counts once."""

    def load() -> Analyse:
        inner = analyse()
        return lambda text: [word for word, _ in itertools.groupby(inner(text))]

    return load


def _stemmer(language: str) -> Callable[[str], str]:
    return _needed("snowballstemmer").stemmer(language).stemWord


def _arabic() -> Analyse:
    lemmatise, stem = _needed("simplemma").lemmatize, _stemmer("arabic")

    def base(word: str) -> str:
        article = next(
            (start for start in _ARABIC_ARTICLES if word.startswith(start) and len(word) > len(start) + 2), ""
        )
        return stem(lemmatise(word.removeprefix(article), lang="ar").translate(_ARABIC))

    def analyse(text: str) -> list[str]:
        # Vowel signs and the dagger alif; the dictionary wants hamza and madda.
        bare = "".join(
            sign for sign in normalise(text) if not ("\u064b" <= sign <= "\u0652" or sign == "\u0670")
        )
        return [base(word) for word in words(bare.casefold())]

    return analyse


def _persian() -> Analyse:
    lemmatise, stem = _needed("simplemma").lemmatize, _stemmer("persian")

    def analyse(text: str) -> list[str]:
        parts = _without(words(normalise(text.translate(_PERSIAN)).casefold()), _PERSIAN_ENDINGS)
        found = (without_marks(lemmatise(part, lang="fa").translate(_PERSIAN)) for part in parts)
        return [stem(word) for lemma in found for word in lemma.split()]

    return analyse


def _azerbaijani() -> Analyse:
    lemmatise = _needed("simplemma").lemmatize

    def analyse(text: str) -> list[str]:
        found = (
            lemmatise(word, lang="tr") for word in words(normalise(text.translate(_AZERBAIJANI)).casefold())
        )
        return [
            lemma.casefold().replace("ı", "i") for lemma in found
        ]  # where the keyboard has no ı, i stands for both

    return analyse


def _chinese() -> Analyse:
    """jieba's words, cut wherever its dictionary has a shorter word: 乒乓 is found in 乒乓球."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in its source, and setuptools' opinion of it
        jieba = _needed("jieba")
    jieba.setLogLevel(logging.WARNING)  # else it reports on standard error how long its dictionary took
    cutter = jieba.Tokenizer()
    # Its cache would lie in the folder for temporary files, and be read from there whoever wrote it.
    with tempfile.TemporaryDirectory() as folder:
        cutter.tmp_dir = folder
        cutter.initialize()

    def analyse(text: str) -> list[str]:
        found = []
        for run in words(normalise(text).casefold()):
            places = sorted(
                {place for _, *ends in cutter.tokenize(run, mode="search") for place in ends} | {0, len(run)}
            )
            found += [run[start:end] for start, end in zip(places, places[1:])]
        return found

    return analyse


def _korean() -> Analyse:
    """Kiwi's morphemes without particles, endings and suffixes: nouns, stems of verbs and adjectives,
    numbers, foreign words."""
    kiwi = _needed("kiwipiepy").Kiwi(num_workers=1)

    def analyse(text: str) -> list[str]:
        found: list[str] = []
        for token in kiwi.tokenize(normalise(text).casefold()):
            tag = token.tag.partition("-")[0]  # VV-I: an irregular verb
            if tag not in _KOREAN_ENDINGS and (tag[0] not in "JESUW" or tag in _KOREAN_WRITTEN):
                found += words(token.form)
        return found

    return analyse


_AMHARIC = _homophones()
_AMHARIC_PREPOSITIONS = ("የ", "በ", "ለ", "ከ")


def _amharic_word(word: str) -> str:
    plain = word.translate(_AMHARIC)
    return plain[1:] if len(plain) > 2 and plain.startswith(_AMHARIC_PREPOSITIONS) else plain


_SIMPLEMMA, _SNOWBALL = "simplemma", "snowballstemmer"
ANALYSERS: Mapping[str, Analyser] = {
    "en": Analyser("lemmas", (_SIMPLEMMA,), _lemmas("en", prepare=lambda text: text.replace("&", " and "))),
    "es": Analyser(
        "lemmas and stems", (_SIMPLEMMA, _SNOWBALL), _lemmas("es", snowball="spanish", kept=_TILDE)
    ),
    # The Greek dictionary has γιαγιά, grandmother, under παππούς, grandfather.
    "el": Analyser("lemmas and stems", (_SIMPLEMMA, _SNOWBALL), _lemmas("el", snowball="greek", start=2)),
    "id": Analyser("lemmas", (_SIMPLEMMA,), _once(_lemmas("id"))),
    "ar": Analyser("lemmas and stems", (_SIMPLEMMA, _SNOWBALL), _arabic),
    "fa": Analyser("lemmas and stems", (_SIMPLEMMA, _SNOWBALL), _persian),
    "zh": Analyser("words", ("jieba",), _chinese),
    "ko": Analyser("morphemes", ("kiwipiepy", "kiwipiepy_model"), _korean),
    "az": Analyser("light normalisation, Turkish lemmas", (_SIMPLEMMA,), _azerbaijani),
    "ha": Analyser("light normalisation", (), _light(lambda word: without_marks(word.translate(_HAUSA)))),
    "am": Analyser("light normalisation", (), _light(_amharic_word)),
    "as": Analyser("light normalisation", (), _light(prepare=lambda text: text.translate(_ASSAMESE))),
    "su": Analyser("light normalisation", (), _light(without_marks)),
}
"""Language (ISO 639-1) -> its analyser: all thirteen of BLEnD."""
