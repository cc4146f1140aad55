"""`Question` and `Task`: what every data set is turned into."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, get_args, overload

from ..errors import TaskError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Split = Literal["neuron", "test"]
Part = Literal["auto", "neuron", "test", "all"]
"""Which of a task's questions are asked (see `Task.part`)."""
Metric = Literal["accuracy", "alignment"]
Form = Literal["letters", "cloze"]
Normalise = Literal["unconditional", "sum", "length"]
"""What an option's log-likelihood is held against in the cloze form: see `culnig_tl.method.cloze`."""
NORMALISATIONS: tuple[str, ...] = get_args(Normalise)
CONTROL = ":control"
"""End of a control task's name, for people to read; what a task is, `Task.is_control` says."""
HARNESS = "lm_eval:"
"""Beginning of the name of a task of lm-evaluation-harness (see `culnig_tl.tasks.harness`)."""
HARNESS_FILES = (".yaml", ".yml")

_LATER = frozenset({"accepted", "language"})
"""Fields of `Question` that were added after fingerprints had been written to files."""
_OF_CLOZE = frozenset({"stem", "texts", "form", "normalise"})
"""Fields that decide nothing where a question is answered with a label."""


CLOZE_PROMPT, CLOZE_CONTROL = "Question: {question}\nAnswer:", "Answer:"
"""The plain prompt of the cloze form, as in OLMES (Gu et al. 2024, arXiv 2406.08446), and what is left
without the question."""


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt with one correct answer label, or with several accepted answers."""

    task: str
    """Name of the task it belongs to."""
    id: str
    """Unique within the task."""
    cluster: str
    """The underlying question; its wordings, option orders and countries are not independent rows."""
    prompt: str
    """What the user turn says."""
    options: tuple[str, ...]
    """The labels that can be answered, e.g. ``("A", "B", "C", "D")``."""
    answer: str
    """The right label, one of `options`."""
    country: str | None = None
    """Country the question is about, by the names of `culnig_tl.tasks.COUNTRIES`, if it has one."""
    group: str | None = None
    """Topic."""
    split: Split | None = None
    """Whether it is there to find neurons or to test them; None where a task has a single split."""
    system: str | None = None
    """System message, if any."""
    answer_prefix: str = ""
    """Text that the assistant turn begins with; the label follows it directly."""
    template: int = 0
    """Index of the instruction wording."""
    control: str | None = None
    """The same instruction and options without the question; None where nothing sensible would be left."""
    accepted: tuple[str, ...] = ()
    """Every right answer, `answer` among them, of a question that is answered in words, without `options`."""
    language: str | None = None
    """ISO 639-1 code of the language of the answers, where that decides how they are compared."""
    stem: str | None = None
    """The question itself, without options and instruction, where it can be asked by the options' words."""
    texts: tuple[str, ...] = ()
    """The options' words, in the order of `options`."""
    form: Form = "letters"
    """Whether a label answers it, or the likelihood of the options' words (see `Task.cloze`)."""
    normalise: Normalise = "unconditional"
    """Of the cloze form: what an option's log-likelihood is held against."""


@dataclass(frozen=True)
class Task:
    """An ordered collection of questions, as in lm-evaluation-harness.

    Iterate over it, index it, or narrow it: every method returns a new `Task`.
    """

    name: str
    questions: tuple[Question, ...]
    source: str = ""
    """Where the rows came from: a Hub id, a folder, or "package"."""
    licence: str = ""
    culture: bool = False
    """True for tasks that ask about cultures, False for NLU tasks."""
    skipped: int = 0
    """Rows that are known to be broken in the data set and were left out (the log says which)."""
    is_control: bool = False
    """Whether these are questions with the question left out, made by `control`."""
    metric: Metric = "accuracy"
    """How an answer is scored: right or wrong, or by how near it is to the label (`alignment`)."""
    _fingerprint: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for question in self.questions:
            if question.id in seen:
                raise TaskError(f"task {self.name!r}: question id {question.id!r} occurs twice")
            seen.add(question.id)
            if question.answer not in (right := question.accepted or question.options):
                raise TaskError(
                    f"task {self.name!r}, question {question.id!r}: "
                    f"answer {question.answer!r} is not one of {right}"
                )

    def __len__(self) -> int:
        return len(self.questions)

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Task: ...
    def __getitem__(self, index: int | slice) -> Question | Task:
        if isinstance(index, slice):
            return replace(self, questions=self.questions[index])
        return self.questions[index]

    def __str__(self) -> str:
        countries = f", {len(self.countries)} countries" if self.countries else ""
        size = f"{len(self):,} questions in {self.cluster_count:,} clusters"
        return f"Task {self.name}: {size}{countries} ({self.source})"

    def _repr_html_(self) -> str:
        return self.to_dataframe().head(10)._repr_html_()

    @property
    def countries(self) -> tuple[str, ...]:
        """Countries asked about, sorted."""
        return tuple(sorted({q.country for q in self.questions if q.country is not None}))

    @property
    def cluster_count(self) -> int:
        """Number of distinct underlying questions: N_D in the method's formulas."""
        return len({q.cluster for q in self.questions})

    @property
    def row_count(self) -> int:
        """Number of distinct rows of the data set: one row in several wordings counts once."""
        return len({q.id.removesuffix(f"/{q.template}") for q in self.questions})

    @property
    def split(self) -> str:
        """ "neuron" or "test" where all its questions are of that split; otherwise "all"."""
        splits = {q.split for q in self.questions}
        return str(next(iter(splits)) or "all") if len(splits) == 1 else "all"

    @property
    def has_control(self) -> bool:
        """Whether `control` works."""
        return bool(self.questions) and all(q.control is not None for q in self.questions)

    @property
    def short_answers(self) -> bool:
        """Whether its questions are answered in words and not with a label."""
        return bool(self.questions) and all(q.accepted for q in self.questions)

    @property
    def fingerprint(self) -> str:
        """Hash of all questions, 16 hex digits; it goes into every file that is made from the task.

        Fields that were added later are hashed only where they are set, so that older fingerprints stay
        valid.
        """
        if not self._fingerprint:
            digest = hashlib.sha256()
            names = sorted(f.name for f in fields(Question))
            for question in self.questions:
                left_out = frozenset() if question.form == "cloze" else _OF_CLOZE
                values = {name: getattr(question, name) for name in names if name not in left_out}
                said = {name: value for name, value in values.items() if value or name not in _LATER}
                if question.normalise == "unconditional":  # the only one at first
                    said.pop("normalise", None)
                digest.update(json.dumps(said, ensure_ascii=False).encode())
            self._fingerprint.append(digest.hexdigest()[:16])
        return self._fingerprint[0]

    def filter(self, keep: Callable[[Question], bool]) -> Task:
        """The questions for which `keep` is true."""
        return replace(self, questions=tuple(q for q in self.questions if keep(q)))

    def grouped(self, groups: Mapping[str, Iterable[str]]) -> Task:
        """The same questions, with groups of countries in place of countries, as scores, sets and tables then
        have them; those of countries in no group are left out.

        Args:
            groups: group -> its countries, by any name that `tasks.countries.unify` knows, e.g.
                ``{"Iberia": ["Spain", "PRT"]}``.

        Raises:
            TaskError: no group, a country that is in two of them, or that the task does not ask about.
        """
        from .countries import unify

        of: dict[str, str] = {}
        for group, names in groups.items():
            for country in map(unify, names):
                if country not in self.countries:
                    asked = ", ".join(self.countries) or "none"
                    raise TaskError(
                        f"task {self.name!r} asks nothing about {country!r} of {group!r}; it has {asked}"
                    )
                if of.setdefault(country, group) != group:
                    raise TaskError(f"{country!r} is in two groups: {of[country]!r} and {group!r}")
        if not of:
            raise TaskError("name at least one group of countries")
        kept = (q for q in self.questions if q.country in of)
        return replace(self, questions=tuple(replace(q, country=of[str(q.country)]) for q in kept))

    def neuron_split(self) -> Task:
        """The questions to find neurons with. Raises `TaskError` if the task has none."""
        return self._split("neuron")

    def test_split(self) -> Task:
        """The questions to test neurons on; the whole task if it has a single split."""
        return self._split("test")

    def part(self, which: Part = "auto", *, found_on: bool) -> Task:
        """The questions to ask of neurons.

        Args:
            which: "auto" for all of them, as in the paper, but the test split alone where neurons were found
                on this task; or a split, or "all", whatever neurons were found on.
            found_on: whether neurons were found on this task.

        Raises `TaskError` where the task has no such split; "test" is the whole task if it has a single one.
        """
        if which == "auto":
            which = "test" if found_on else "all"
        return {"neuron": self.neuron_split, "test": self.test_split, "all": lambda: self}[which]()

    def _split(self, split: Split) -> Task:
        if all(q.split is None for q in self.questions):
            if split == "test":
                return self
            raise TaskError(f"task {self.name!r} has no neuron split: it only tests neurons")
        part = self.filter(lambda q: q.split == split)
        if not part.questions:
            raise TaskError(f"task {self.name!r} holds no question of the {split} split")
        return part

    def control(self) -> Task:
        """The same questions with the question left out: instruction and options only.

        Raises `TaskError` if the task offers none, because nothing sensible would be left. Neurons are then
        selected from the task's own scores, with nothing subtracted.
        """
        if not self.has_control:
            raise TaskError(
                f"task {self.name!r} offers no control: without the question nothing sensible is left; "
                "select from its own scores, with nothing subtracted"
            )
        return replace(
            self,
            name=f"{self.name}{CONTROL}",
            questions=tuple(
                replace(q, prompt=q.control or "", task=f"{q.task}{CONTROL}", control=None)
                for q in self.questions
            ),
            is_control=True,
        )

    @property
    def form(self) -> Form:
        """ "letters": a label answers the questions; "cloze": the likelihood of the options' words."""
        return self.questions[0].form if self.questions else "letters"

    @property
    def normalise(self) -> Normalise:
        """Of cloze questions, what an option's log-likelihood is held against."""
        return self.questions[0].normalise if self.questions else "unconditional"

    def normalised(self, normalise: Normalise) -> Task:
        """The same cloze questions, with log-likelihoods held against something else; letters stay as they
        are. Raises `TaskError` for a normalisation that there is not."""
        if normalise not in NORMALISATIONS:
            raise TaskError(f"unknown normalise {normalise!r}: use {', '.join(NORMALISATIONS)}")
        if self.form == "letters":
            return self
        return replace(self, questions=tuple(replace(q, normalise=normalise) for q in self.questions))

    def cloze(
        self,
        prompt: str = CLOZE_PROMPT,
        control: str = CLOZE_CONTROL,
        *,
        normalise: Normalise = "unconditional",
    ) -> Task:
        """The same questions, asked by the likelihood of their options' words after a plain prompt.

        Questions that differ in their instruction alone are one: the first stays.

        Args:
            prompt: with a blank ``{question}``; the options' texts stand after a space.
            control: what the words' own likelihood is taken after.
            normalise: what an option's log-likelihood is held against: that of its words after the control,
                nothing ("sum"), or its number of characters ("length").

        A question with two options of the same text cannot be asked so: it is left out, named in the log, and
        counted in `skipped`. Raises `TaskError` where the options are no words of their own, and for an
        option without text.
        """
        if self.is_control:
            raise TaskError(
                f"task {self.name!r} has its questions left out already: first cloze(), then control()"
            )
        if self.name.startswith(HARNESS):
            raise TaskError(
                f"task {self.name!r} is asked in the words of lm-evaluation-harness, and no others"
            )
        kept: dict[tuple[object, ...], Question] = {}
        twice: dict[tuple[object, ...], str] = {}  # what they ask -> id
        for q in self.questions:
            if q.stem is None or not q.texts:
                raise TaskError(
                    f"task {self.name!r} cannot be asked in the form 'cloze': its options are labels without"
                    " words of their own"
                )
            texts = tuple(text.strip() for text in q.texts)
            if not all(texts):
                raise TaskError(f"task {self.name!r}, question {q.id!r}: an option has no text")
            right = texts[q.options.index(q.answer)]
            key = (q.stem, q.country, q.cluster, right, *sorted(texts))
            if len(set(texts)) < len(texts):
                twice.setdefault(key, q.id)
                continue
            asked = replace(
                q,
                prompt=prompt.replace("{question}", q.stem),
                control=control,
                system=None,
                answer_prefix="",
                template=0,
                texts=texts,
                form="cloze",
            )
            kept.setdefault(key, asked)
        if twice:
            named = ", ".join(map(repr, list(twice.values())[:3]))
            log.warning(
                "%s: left out %d questions with two options of the same text, e.g. %s",
                self.name,
                len(twice),
                named,
            )
        asked = replace(self, questions=tuple(kept.values()), skipped=self.skipped + len(twice))
        return asked.normalised(normalise)

    def rows(self, count: int | None) -> Task:
        """At most `count` rows of the same question, in the task's order; all for None.

        Rows are of the same question where they differ in their wrong options alone, or in the order of the
        options: country, cluster, wording and stem are the same. Which ones stay is decided by a hash of
        their ids, not by their place in the file. Raises `TaskError` for a count below 1.
        """
        if count is None:
            return self
        if count < 1:
            raise TaskError(f"rows must be at least 1, not {count}")
        alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for i, q in enumerate(self.questions):
            alike[q.country, q.cluster, q.split, q.template, q.prompt if q.stem is None else q.stem].append(i)
        kept = sorted(
            i
            for places in alike.values()
            for i in sorted(places, key=lambda i: _digest("rows", self.questions[i].id))[:count]
        )
        return self if len(kept) == len(self) else replace(self, questions=tuple(self[i] for i in kept))

    def limit(self, count: int | None) -> Task:
        """`count` questions spread evenly over countries and templates, in the task's order; all for None."""
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise TaskError(f"limit must be at least 1, not {count}")
        chosen = sorted(islice(_even_order(self.questions), count))
        return replace(self, questions=tuple(self.questions[i] for i in chosen))

    def to_dataframe(self) -> pd.DataFrame:
        """One row per question, one column per field of `Question`."""
        import pandas as pd

        return pd.DataFrame([asdict(q) for q in self.questions])

    def counts(self) -> Counter[str | None]:
        """Number of questions per country."""
        return Counter(q.country for q in self.questions)


def _even_order(questions: tuple[Question, ...]) -> Iterator[int]:
    """All positions, ordered so that every prefix is as even over countries and templates as possible.

    Countries take turns. In turn r the i-th country takes from template i + r * countries, shifted by one
    whenever all templates have been taken equally often, so that each country goes through all templates
    before it repeats one. If it has no question left there, it takes from the template that was taken least.
    Within a template, one question of every cluster comes first. Ties are broken by the questions' hashes,
    never by their place in the file.
    """
    hashed = sorted(range(len(questions)), key=lambda i: _digest("limit", questions[i].id))
    cells: dict[str, dict[tuple[int, str], list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    repeats: Counter[tuple[str | None, tuple[int, str], str]] = Counter()
    for order, position in enumerate(hashed):
        q = questions[position]
        cell = (q.template, q.split or "")
        cells[q.country or ""][cell].append(
            (repeats[q.country, cell, q.cluster] * len(questions) + order, position)
        )
        repeats[q.country, cell, q.cluster] += 1
    for country in cells.values():
        for waiting in country.values():
            waiting.sort(reverse=True)
    templates: Counter[int] = Counter()
    splits: Counter[str] = Counter()
    taken: Counter[tuple[str, tuple[int, str]]] = Counter()
    kinds = sorted({q.template for q in questions})
    seats = {name: seat for seat, name in enumerate(cells)}
    # turns after which all templates have been taken equally often
    lap = len(kinds) // math.gcd(len(seats), len(kinds))
    turn = 0
    while cells:
        for name in list(cells):
            due = kinds[(seats[name] + turn * len(seats) + turn // lap) % len(kinds)]
            cell = min(
                cells[name], key=lambda c: (c[0] != due, templates[c[0]], splits[c[1]], taken[name, c])
            )
            yield cells[name][cell].pop()[1]
            templates[cell[0]] += 1
            splits[cell[1]] += 1
            taken[name, cell] += 1
            if not cells[name][cell]:
                del cells[name][cell]
            if not cells[name]:
                del cells[name]
        turn += 1


def alignment(question: Question, answer: str) -> float:
    """How near `answer` is to the label, in percent: 100 * (1 - |o - g| / max(|min - g|, |max - g|)).

    o is the answer, g the label, min and max the ends of the scale; `options` are whole numbers. An answer
    off the scale gets 0. The measure of WorldValuesBench (Zhao et al. 2024, arXiv 2404.16308).
    """
    if answer not in question.options:
        return 0.0
    scale, label = [int(option) for option in question.options], int(question.answer)
    return 100 * (1 - abs(int(answer) - label) / max(abs(min(scale) - label), abs(max(scale) - label)))


def task_name(given: str) -> str:
    """What a task is called that is asked for by this name or path: a file's name is its stem."""
    rest = given.removeprefix(HARNESS)
    is_file = "." in rest if rest == given else rest.endswith(HARNESS_FILES)
    return given.removesuffix(rest) + PurePath(rest).stem if is_file else given


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()


def seeded_random(*parts: object) -> random.Random:
    """A random generator seeded by what it is for: the same on every machine, in any order and process."""
    return random.Random(int.from_bytes(_digest(*parts)[:8], "big"))


def letters(options: Iterable[str], labels: str = "ABCDEFGHIJ") -> str:
    """Options as lines ``A. first``, ``B. second``, ..."""
    return "\n".join(f"{label}. {option}" for label, option in zip(labels, options))
