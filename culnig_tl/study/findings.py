"""Findings: what a study's numbers say in plain words, with what does not hold first.

Each finding is a claim that could have failed, with the numbers that decide it. Sentences, tables and pages
are all written from the same `Drop` objects, so they cannot disagree:

    drops of every task  ->  Finding (holds, open or fails)  ->  verdict, headline, sentence

One rule decides everywhere: a claim of "more" holds where the difference's 95% interval lies above 0, fails
where it lies below 0, and is open where it touches 0, however large the difference itself is. An interval
without width, where no answer has changed, is open too: a small sample looks just so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import hypot

from ..data.statistics import Drop
from ..method.specificity import HIGH_SHARE


class Holds(str, Enum):
    """What the numbers say about the claim that these neurons carry culture."""

    NO = "against it"
    """The numbers speak against it."""
    OPEN = "open"
    """The numbers cannot tell, or nothing was asked that could decide it."""
    CAUTION = "take care"
    """Decides nothing, but should be known before the claim is repeated."""
    YES = "for it"
    """It could have failed, and did not."""


_ORDER = list(Holds)


@dataclass(frozen=True)
class Finding:
    """One test of the claim, and what the numbers say."""

    name: str
    """"ability", "random", "culture alone", "rival", "other culture", "countries", "sample" or "seen"."""
    holds: Holds
    title: str
    """In a few words, without a number."""
    text: str
    """In one to three sentences; every number in them is in `numbers`."""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskDrops:
    """What suppressing the culture-general neurons costs on one task, against each kind of set it is compared
    with."""

    culture: bool
    """Whether the task is cultural."""
    layer: Drop
    """Against random sets with the same counts in every site and layer."""
    count: Drop | None = None
    """Against random sets of the same size, the paper's; None where none were asked."""
    rival: Drop | None = None
    """Against as many neurons, layer by layer, of a task without culture; its drop is `rival.random_mean`."""
    se: float = float("nan")
    """Standard error of the unchanged model's accuracy, points."""
    trivial: float | None = None
    """Accuracy in percent of always giving the likeliest label of each wording, or, in the cloze form, of
    guessing; None where answers are not right or wrong."""


@dataclass(frozen=True)
class Findings:
    """Everything that is said about a study."""

    task: str
    """The cultural task that the neurons were found on."""
    drops: Mapping[str, TaskDrops]
    neurons: int
    """Culture-general neurons."""
    share: float
    """Percent of the scored neurons that they are."""
    rival: str | None = None
    """The rival's task, where the study has one."""
    shared_pattern: float | None = None
    """Rank-1 share of the country x neuron matrix, 0 to 1, where countries were scored."""
    limit: int | None = None
    """Questions per task that were asked at most."""
    split: str = "test"
    """Which of the questions of `task` were asked: the test split, or others too."""

    def claims(self) -> list[Finding]:
        """Every finding; what does not hold comes first."""
        found = [
            self._ability(),
            self._random(),
            self._alone(),
            self._rival(),
            self._other_culture(),
            self._countries(),
            self._sample(),
            self._seen(),
        ]
        return sorted((f for f in found if f is not None), key=lambda finding: _ORDER.index(finding.holds))

    @property
    def holds(self) -> Holds:
        """Whether the whole claim, "these neurons carry culture", holds: as its weakest part does. Without a
        rival the rest decides."""
        weakest = min(
            (part.holds for part in (self._random(), self._alone(), self._rival())), key=_ORDER.index
        )
        return Holds.YES if weakest is Holds.CAUTION else weakest

    def verdict(self) -> str:
        """Whether the drop is larger than random sets', and whether it is culture alone; in half a
        sentence."""
        random, alone, rival = (part.holds for part in (self._random(), self._alone(), self._rival()))
        if random is Holds.NO:
            return "no more than random sets cost, so nothing is shown about culture"
        if not self._plain():
            first = "no task without culture was asked, so it may not be culture alone"
        else:
            first = {
                Holds.NO: "a task without culture loses as much, so it is not culture alone",
                Holds.OPEN: (
                    "a task without culture may lose as much, so it is open whether it is culture alone"
                ),
            }.get(alone, "")
        second = {
            Holds.NO: (
                f"as many neurons of {self.rival} do the same, so it is not shown that they are culture's"
            ),
            Holds.OPEN: f"as many neurons of {self.rival} may do the same",
        }.get(rival, "")
        if random is Holds.OPEN:
            fails = [words for words, state in ((first, alone), (second, rival)) if state is Holds.NO]
            open_ = "it is open whether it is more than random sets cost, so nothing is shown about culture"
            return "; and ".join([*fails, open_])
        against = "; and ".join(filter(None, [first, second]))
        if against:
            return f"more than every random set, but {against}"
        more = f", and more than as many neurons of {self.rival} do" if self.rival is not None else ""
        return f"more than every random set, and more than any task without culture loses{more}"

    def headline(self) -> str:
        """The verdict as a sentence of its own; what does not hold comes first."""
        random = self._random().holds
        if random is Holds.NO:
            return (
                f"Nothing is shown about culture: suppressing these neurons costs {self.task} no more than"
                " random sets cost."
            )
        weak = [part for part in (self._alone(), self._rival()) if part.holds in (Holds.NO, Holds.OPEN)]
        weak.sort(key=lambda part: _ORDER.index(part.holds))
        said = "".join(f"{part.title}. " for part in weak if random is Holds.YES or part.holds is Holds.NO)
        if random is Holds.OPEN:
            costs = (
                f"It is open whether suppressing these neurons costs {self.task} more than random sets cost"
            )
            return f"{said}{costs}: nothing is shown about culture."
        if weak:
            return f"{said}Yet suppressing these neurons costs {self.task} more than every random set."
        than = "random sets and a rival set do" if self.rival is not None else "random sets do"
        return (
            f"Suppressing these neurons costs {self.task} more than {than}, and more than tasks without"
            " culture lose."
        )

    def sentence(self) -> str:
        """What was found, in a sentence or two written from the numbers; what does not hold comes first."""
        if self.holds is Holds.YES:
            return f"{self.measured()}: {self.verdict()}."
        return f"{self.verdict()[0].upper()}{self.verdict()[1:]}. {self.measured()}."

    def measured(self) -> str:
        """The numbers alone, without a full stop: what suppressing costs the task, and what random sets and
        tasks without culture lose."""
        culture, plain = self.drops[self.task].layer, self._plain()
        text = (
            f"Suppressing {self.neurons:,} culture-general neurons ({self.share:.1f}% of those scored) takes"
            f" {self.task} from {culture.base:.1f}% to {culture.base - culture.drop:.1f}%"
            f" ({change(culture.drop)} points, 95% interval {interval(culture.low, culture.high)};"
            f" layer-matched random sets {change(culture.random_mean)} on average, rank {culture.rank} of"
            f" {culture.random_sets + 1})"
        )
        if plain:
            own, random = (
                sum(values) / len(plain)
                for values in zip(*((d.layer.drop, d.layer.random_mean) for d in plain.values()))
            )
            text += f", and the tasks without culture by {change(own)} on average (random {change(random)})"
        return text

    # --------------------------------------------------------------------------------------------- the claims

    def _plain(self) -> dict[str, TaskDrops]:
        return {task: d for task, d in self.drops.items() if not d.culture}

    def _ability(self) -> Finding | None:
        """Where the unchanged model does not know the answers, it has nothing to lose."""
        here = self.drops[self.task]
        base, trivial = here.layer.base, here.trivial
        if trivial is None:
            return None
        low, high = base - 1.96 * here.se, base + 1.96 * here.se
        holds = _decided(low - trivial, high - trivial)
        if holds is Holds.YES:
            return None
        text = (
            f"Unchanged, the model answers {base:.1f}% of {self.task} right (95% interval {points(low)} to"
            f" {points(high)}); without the question it would be {trivial:.1f}%."
        )
        numbers = {"base": base, "low": low, "high": high, "trivial": trivial}
        if holds is Holds.OPEN:
            title = "It is open whether the model knows the answers"
            return Finding("ability", holds, title, f"{text} There may be nothing to lose.", numbers)
        title = "The model does not know the answers"
        return Finding("ability", holds, title, f"{text} There is hardly anything to lose.", numbers)

    def _random(self) -> Finding:
        layer, count = self.drops[self.task].layer, self.drops[self.task].count
        numbers = {
            **_numbers(layer),
            "sets": layer.random_sets,
            "as_much": layer.rank - 1,
            "denominator": layer.random_sets + 1,
            "questions": layer.questions,
            "random_questions": layer.random_questions,
            "part_drop": -layer.part_drop,
        }
        anywhere = others = to_first = ""
        if count is not None:
            numbers |= {
                "count_mean": -count.random_mean,
                "count_excess": -count.excess,
                "count_rank": count.rank,
                "count_sets": count.random_sets,
                "count_as_much": count.rank - 1,
            }
            anywhere = f", by {change(count.random_mean)} where they are drawn from anywhere"
            to_first = " to the first"
            others = f", of the {count.random_sets} others {count.rank - 1}"
        text = (
            f"{self.task} changes by {change(layer.drop)} points (95% interval"
            f" {interval(layer.low, layer.high)}). Random sets of the same size change it by"
            f" {change(layer.random_mean)} on average where they have the same layers and"
            f" sites{anywhere}; the difference{to_first} is {change(layer.excess)} (95% interval"
            f" {interval(layer.excess_low, layer.excess_high)})."
        )
        if layer.random_questions < layer.questions:
            text += (
                f" They were asked {layer.random_questions:,} of the {layer.questions:,} questions: there the"
                f" culture-general neurons change it by {change(layer.part_drop)}."
            )
        holds = min((_beyond(drop) for drop in (layer, count) if drop is not None), key=_ORDER.index)
        if holds is Holds.YES:
            title = "It costs more than random sets do"
            text += (
                f" None of them costs as much. With {layer.random_sets} sets the smallest possible p by rank"
                f" is 1/{layer.random_sets + 1}."
            )
            return Finding("random", holds, title, text, numbers)
        text += (
            f" Of the {layer.random_sets} {'sets' if count is None else 'first'} {layer.rank - 1} cost as"
            f" much or more{others}."
        )
        if not layer.excess_low > 0 and holds is Holds.OPEN:
            text += " The difference cannot be told from nothing."
        title = {
            Holds.NO: "It costs no more than random sets do",
            Holds.OPEN: "It is open whether it costs more than random sets do",
        }[holds]
        return Finding("random", holds, title, text, numbers)

    def _alone(self) -> Finding:
        """Beyond random sets, does culture lose more than every task without culture?"""
        culture, plain = self.drops[self.task].layer, self._plain()
        if not plain:
            text = "No task without culture was asked: the neurons may serve answering questions of any kind."
            return Finding("culture alone", Holds.OPEN, "It is open whether it is culture alone", text)
        gaps = {task: _gap(culture, d.layer) for task, d in plain.items()}
        states = {t: _decided(gap - half, gap + half) for t, (gap, half) in gaps.items()}
        task = min(gaps, key=lambda t: (_ORDER.index(states[t]), gaps[t][0]))
        worst, (gap, half), holds = plain[task].layer, gaps[task], states[task]
        numbers = {
            "culture_excess": -culture.excess,
            "plain_excess": -worst.excess,
            "gap": gap,
            "gap_low": gap - half,
            "gap_high": gap + half,
        }
        text = (
            f"Beyond what random sets cost, {self.task} changes by {change(culture.excess)} points; of the"
            f" tasks without culture, {task} comes nearest, with {change(worst.excess)}. Culture loses"
            f" {points(gap)} more (95% interval {points(gap - half)} to {points(gap + half)})."
        )
        also = [t for t, d in plain.items() if d.layer.excess_low > 0]
        if also:
            text += f" Not only culture loses more than random: {', '.join(also)} too."
        title = {
            Holds.NO: f"It is not culture alone: {task}, a task without culture, loses as much",
            Holds.OPEN: (
                f"It is open whether it is culture alone: {task}, a task without culture, may lose as much"
            ),
            Holds.YES: "Culture loses more than any task without culture",
        }[holds]
        return Finding("culture alone", holds, title, text, numbers)

    def _rival(self) -> Finding:
        here = self.drops[self.task].rival
        if here is None or self.rival is None:
            text = (
                "No rival set was compared: as many neurons that serve a task without culture might cost"
                " culture as much."
            )
            return Finding("rival", Holds.CAUTION, "There is no rival to compare with", text)
        numbers = {
            "drop": -here.drop,
            "rival": -here.random_mean,
            "excess": -here.excess,
            "excess_low": -here.excess_low,
            "excess_high": -here.excess_high,
        }
        text = (
            f"As many neurons, layer by layer, with the highest scores on {self.rival} change {self.task} by"
            f" {change(here.random_mean)} points; the culture-general neurons change it by"
            f" {change(here.drop)}, a difference of {change(here.excess)} (95% interval"
            f" {interval(here.excess_low, here.excess_high)})."
        )
        holds = _decided(here.excess_low, here.excess_high)
        own = self.drops[self.rival].rival if self.rival in self.drops else None
        if own is not None:
            numbers |= {"own_drop": -own.drop, "own_rival": -own.random_mean}
            text += (
                f" On {self.rival} itself (the half that they were not found on) the rival's neurons change"
                f" {change(own.random_mean)} and the culture-general ones {change(own.drop)}."
            )
            if holds is Holds.YES and not own.excess_high < 0:
                text += " They are not shown to cost the rival's own task less than its own neurons do."
                holds = Holds.OPEN
        title = {
            Holds.NO: f"A rival does the same: as many neurons of {self.rival} cost {self.task} as much",
            Holds.OPEN: f"A rival may do the same: neurons of {self.rival} cannot be told from these",
            Holds.YES: f"It costs more than as many neurons of {self.rival} do",
        }[holds]
        return Finding("rival", holds, title, text, numbers)

    def _other_culture(self) -> Finding | None:
        """Do other cultural tasks, which the neurons were not found on, lose too?"""
        others = {task: d.layer for task, d in self.drops.items() if d.culture and task != self.task}
        if not others:
            return None
        states = {task: _beyond(drop) for task, drop in others.items()}
        keep = [task for task, state in states.items() if state is not Holds.YES]
        numbers = {f"{task} {key}": value for task, d in others.items() for key, value in _numbers(d).items()}
        each = "; ".join(
            f"{task} {change(d.drop)} (random {change(d.random_mean)}; beyond it {change(d.excess)}, 95%"
            f" interval {interval(d.excess_low, d.excess_high)})"
            for task, d in others.items()
        )
        holds = Holds.OPEN
        if len(set(states.values())) == 1:
            (holds,) = set(states.values())
        title = {
            Holds.YES: "Other cultural tasks lose more than random too",
            Holds.OPEN: f"Not every cultural task is shown to lose more than random: not {', '.join(keep)}",
            Holds.NO: "No other cultural task loses more than random",
        }[holds]
        return Finding("other culture", holds, title, f"Changes in points: {each}.", numbers)

    def _countries(self) -> Finding | None:
        if self.shared_pattern is None:
            return None
        percent = 100 * self.shared_pattern
        text = f"One pattern that all countries share explains {percent:.1f}% of their scores"
        if self.shared_pattern > HIGH_SHARE:
            text += ": what is called one country's neurons may be everybody's."
            return Finding(
                "countries",
                Holds.CAUTION,
                "Countries hardly differ in their scores",
                text,
                {"percent": percent},
            )
        text += (
            "; the rest is left for differences between countries. Whether one country's neurons cost it most"
            " was not tested by this."
        )
        return Finding(
            "countries", Holds.CAUTION, "Countries share part of their scores", text, {"percent": percent}
        )

    def _sample(self) -> Finding | None:
        if self.limit is None:
            return None
        text = (
            f"At most {self.limit:,} questions per task were asked, spread evenly over countries and "
            "wordings: a study without --limit asks all."
        )
        return Finding(
            "sample", Holds.CAUTION, "Only a part of the questions was asked", text, {"limit": self.limit}
        )

    def _seen(self) -> Finding | None:
        if self.split == "test":
            return None
        which = "were all asked" if self.split == "all" else "alone were asked"
        text = (
            f"The questions of {self.task} that the neurons were found on {which}: there the drop says less"
            " than on questions of other topics. --split auto leaves them out."
        )
        return Finding("seen", Holds.CAUTION, "Neurons were asked what they were found on", text)


# ------------------------------------------------------------------------------------------- numbers in words


def change(drop: float) -> str:
    """A drop as a change of accuracy in points: a loss of 3.75 is "−3.8", nothing is "0.0", NaN "unknown"."""
    if drop != drop:
        return "unknown"
    value = round(-drop, 1) + 0.0
    return f"{value:+.1f}".replace("-", "−") if value else "0.0"


def points(value: float) -> str:
    """A number of points, "−" in front where it is negative; "unknown" for NaN."""
    return "unknown" if value != value else f"{round(value, 1) + 0.0:.1f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    """An interval of a drop as one of a change of accuracy, "−6.3 to −1.3"; "unknown" where all questions are
    one cluster."""
    return "unknown" if low != low or high != high else f"{change(high)} to {change(low)}"


def _numbers(drop: Drop) -> dict[str, float]:
    """What is said about a drop, as changes of accuracy in points."""
    return {
        "base": drop.base,
        "after": drop.base - drop.drop,
        "drop": -drop.drop,
        "low": -drop.low,
        "high": -drop.high,
        "random_mean": -drop.random_mean,
        "excess": -drop.excess,
        "excess_low": -drop.excess_low,
        "excess_high": -drop.excess_high,
        "rank": drop.rank,
    }


def _decided(low: float, high: float) -> Holds:
    """What the 95% interval of a difference says of "there is one above 0"; NaN is open."""
    return Holds.YES if low > 0 else Holds.NO if high < 0 else Holds.OPEN


def _beyond(drop: Drop) -> Holds:
    """Whether it costs more than random: the interval of the excess lies above 0, and no random set costs as
    much.

    Where one does, although the interval lies above 0, the numbers do not agree: open.
    """
    said = _decided(drop.excess_low, drop.excess_high)
    return Holds.OPEN if said is Holds.YES and drop.rank > 1 else said


def _gap(culture: Drop, other: Drop) -> tuple[float, float]:
    """By how much the excess of one task exceeds another's, and half of the difference's 95% interval, in
    points.

    The tasks' questions differ, so the two intervals are independent: half widths add in squares (normal
    approximation).
    """
    halves: Sequence[float] = [(d.excess_high - d.excess_low) / 2 for d in (culture, other)]
    return culture.excess - other.excess, hypot(*halves)
