"""Variants: does the matcher agree with annotators? Precision and recall by language, on BLEnD's own answers.

BLEnD's annotators put variants of one answer into a group ("grape", "grapes") and told different answers to a
question apart. Any two variants of a group should match, and no two of different groups. What the numbers
mean:

- Groups also hold translations, synonyms, abbreviations and misspellings ("USA", "united states"), which no
lemmatiser
  brings together, so recall on all variants is far from 1. Beside it stands recall on the pairs that are
  *spelled alike*: as many words, and a `difflib` ratio of 0.75 or more. Many of these are inflected forms.
- An answer that holds another ("fried chicken", "chicken") counts as giving it, in BLEnD's own metric too,
although
  annotators told the two apart. Nearly all false matches are of this kind; `conflated` counts the others,
  whose words became the same ("chicken", "chickens", in two groups).
- Two groups of a question that share a variant are an oversight of the annotators; they are left out as
different answers.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from ...errors import MatchError
from ...tasks.blend_saq import LANGUAGES, read_variants
from .matching import Matcher, occurs

ALIKE = 0.75
"""Two variants are spelled alike from this ratio of `difflib.SequenceMatcher` on."""
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class VariantPairs:
    """Pairs of answers to one question that were given in one region, in its language."""

    same: Pairs
    """Variants of one answer."""
    different: Pairs
    """Of different answers."""

    @property
    def alike(self) -> Pairs:
        """Variants of one answer that are spelled alike."""
        return [pair for pair in self.same if spelled_alike(*pair)]


def variant_pairs(*, data_dir: str | Path | None = None) -> dict[str, VariantPairs]:
    """Language -> the pairs of all its regions, over all questions of BLEnD."""
    found: dict[str, VariantPairs] = {}
    for country, language in LANGUAGES.items():
        pairs = found.setdefault(language, VariantPairs([], []))
        for groups in read_variants(country, data_dir=data_dir).values():
            for group in groups:
                pairs.same.extend(itertools.combinations(group, 2))
            for one, other in itertools.combinations(groups, 2):
                if not _folded(one) & _folded(other):
                    pairs.different.extend(itertools.product(one, other))
    return found


def spelled_alike(one: str, other: str) -> bool:
    """As many words, and nearly the same letters; nothing is analysed."""
    if len(one.split()) != len(other.split()):
        return False
    return difflib.SequenceMatcher(None, one.casefold(), other.casefold(), autojunk=False).ratio() >= ALIKE


def agreement(
    matcher: Matcher | None = None,
    *,
    data_dir: str | Path | None = None,
    languages: Iterable[str] | None = None,
) -> pd.DataFrame:
    """The matcher beside plain exact match (the same text, ignoring case): a row per language.

    Every pair counts in both directions.

    Returns:
        same, alike, different: numbers of pairs.
        recall, recall_alike: shares of the pairs of one answer that match, of all and of those spelled alike.
        precision: of these pairs, of which many more are different than the same.
        false_matches: share of the different pairs that match.
        conflated: number of those in which neither merely holds the other.
        exact_recall, exact_alike, exact_precision: the same of exact match; NaN where nothing matched.
        analyser: what compares the language's answers.

    Raises:
        MatchError: a language that BLEnD does not have, or whose analyser is not installed.
        TaskError: BLEnD cannot be read.
    """
    matcher = matcher or Matcher()
    analyse = cache(matcher.analyse)
    pairs = variant_pairs(data_dir=data_dir)
    rows = {}
    for language in pairs if languages is None else languages:
        if language not in pairs:
            raise MatchError(f"BLEnD has no answers in {language!r}; its languages are {', '.join(pairs)}")
        same, alike, different = pairs[language].same, pairs[language].alike, pairs[language].different
        hits, close, wrong = (_matching(analyse, language, some) for some in (same, alike, different))
        equal, equal_close, equal_wrong = (
            sum(2 * _equal(*pair) for pair in some) for some in (same, alike, different)
        )
        rows[language] = {
            "same": len(same),
            "alike": len(alike),
            "different": len(different),
            "recall": _share(hits, 2 * len(same)),
            "recall_alike": _share(close, 2 * len(alike)),
            "precision": _share(hits, hits + wrong),
            "false_matches": _share(wrong, 2 * len(different)),
            "conflated": sum(2 * _same(analyse, language, *pair) for pair in different),
            "exact_recall": _share(equal, 2 * len(same)),
            "exact_alike": _share(equal_close, 2 * len(alike)),
            "exact_precision": _share(equal, equal + equal_wrong),
            "analyser": matcher.source(language),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("language")


def _matching(analyse: Callable[[str, str], Sequence[str]], language: str, pairs: Pairs) -> int:
    """Ordered pairs of which the first, said, holds the second."""
    ordered = (either for pair in pairs for either in (pair, pair[::-1]))
    return sum(
        occurs("".join(analyse(answer, language)), analyse(said, language)) for said, answer in ordered
    )


def _same(analyse: Callable[[str, str], Sequence[str]], language: str, one: str, other: str) -> bool:
    return "".join(analyse(one, language)) == "".join(analyse(other, language)) != ""


def _equal(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _folded(group: Iterable[str]) -> set[str]:
    return {variant.casefold() for variant in group}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
