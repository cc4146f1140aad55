"""Matching: is one of the accepted answers in what was said?

As in BLEnD (Myung et al. 2024, section 4), an answer is given where its words occur one after the other in
the prediction, both in their base form (see `analysers`). Spaces between them do not matter, since annotators
write "ice cream" and "icecream"; whole words do: "art" is not in "party".

    matcher = Matcher()
    matcher.matches("Most people eat grapes at midnight.", ["grape"], "en")  # True
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError

from ...errors import MatchError
from .analysers import ANALYSERS, Analyse, Analyser, loaded


class Matcher:
    """Compares predictions with accepted answers, by language; a dictionary is read when it is first needed.

    Args:
        analysers: your own, by language code, in place of those in `ANALYSERS` or beside them: an `Analyser`,
            or any function from a text to a list of words.
    """

    def __init__(self, analysers: Mapping[str, Analyser | Analyse] | None = None) -> None:
        self._table: dict[str, Analyser | Analyse] = {**ANALYSERS, **(analysers or {})}
        self._answers: dict[tuple[str, str], str] = {}

    def analyse(self, text: str, language: str) -> list[str]:
        """The text's words in their base form.

        Raises `MatchError` for a language without an analyser, or whose analyser is not installed.
        """
        analyser = self._of(language)
        analyse = loaded(analyser) if isinstance(analyser, Analyser) else analyser
        return [word for word in analyse(text) if word]

    def matches(self, prediction: str, accepted: Iterable[str], language: str) -> bool:
        """Whether one of the accepted answers occurs in the prediction; an empty text neither matches nor is
        matched."""
        said = self.analyse(prediction, language)
        return any(occurs(self._answer(answer, language), said) for answer in accepted)

    def source(self, language: str) -> str:
        """What compares a language's answers, with installed versions: ``lemmas (simplemma 2.0.0)``."""
        analyser = self._of(language)
        if not isinstance(analyser, Analyser):
            return f"the user's {getattr(analyser, '__qualname__', type(analyser).__name__)}"
        try:
            return analyser.source
        except PackageNotFoundError as error:
            raise MatchError(
                f"comparing answers in {language!r} needs {error.name}: pip install culnig-tl[saq]"
            ) from error

    def _answer(self, answer: str, language: str) -> str:
        key = (language, answer)
        if key not in self._answers:
            self._answers[key] = "".join(self.analyse(answer, language))
        return self._answers[key]

    def _of(self, language: str) -> Analyser | Analyse:
        if language not in self._table:
            raise MatchError(
                f"no analyser for the language {language!r}: there are {', '.join(self._table)}; "
                f"bring your own with analysers={{{language!r}: function from text to words}}"
            )
        return self._table[language]


def occurs(answer: str, said: Sequence[str]) -> bool:
    """Whether `answer` (words in their base form, without spaces) is a run of whole words of `said`."""
    if not answer:
        return False
    whole = "".join(said)
    starts, place = {0}, 0
    for word in said:
        place += len(word)
        starts.add(place)
    found = whole.find(answer)
    while found >= 0:
        if found in starts and found + len(answer) in starts:
            return True
        found = whole.find(answer, found + 1)
    return False


def without_prompt(prediction: str, prompt: str) -> str:
    """The prediction without what it repeats of the prompt: lines, or what follows a label such as
    ``Question:`` in one.

    Otherwise a question that names an answer would answer itself.
    """
    lines = {line.strip() for line in prompt.splitlines()}
    labelled = {
        part.strip()
        for line in lines
        for sign in (":", "：", "፡")
        if sign in line
        for part in [line.partition(sign)[2]]
    }
    for line in sorted(lines | labelled, key=len, reverse=True):
        if line:
            prediction = prediction.replace(line, "\n")
    return prediction.strip()
