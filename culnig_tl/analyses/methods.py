"""The methods side by side: how true each is, what suppressing its neurons does, and how far they agree.

Every method scores the same questions (the cheap ones may be given more to rank neurons on), and its best
neurons are suppressed in growing numbers: as many for every method, from the MLP pool and the pool of q, k
and v in the same proportion; methods that score the gate alone take that number there. Methods for which
CULNIG's contrast makes sense (`Method.contrast`) are ranked by their score per question less that of the
control. Neurons that serve reading a country's name, the top share by CULNIG on the reading task, are left
out of every method's ranking. With a task without culture to hold against a neuron, every such method is
there once more for each way of `contrast`, as "culnig, filter".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from ..data.neurons import SITES, NeuronSet, Provenance, Site
from ..data.pools import NeuronPool, ranked, share_count
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..defaults import DROP_READING, TOP_ATTN, TOP_MLP
from ..engine.models import HookedModel, describe
from ..errors import ScoreError, StudyError
from ..method.contrast import Contrast, Way
from ..method.exact import ExactEffects
from ..method.methods.registry import METHODS, parse_methods
from ..method.score import score_neurons
from ..study.comparison import halves
from ..study.config import defaults_for
from ..tasks.question import Form, Normalise, Task
from ..version import __version__
from .agreement import ALL, QUESTIONS, agreement, effects_of
from .compare_sets import compare_sets
from .inputs import model_of, task_of
from .selectivity import Losses, held_out, losses, selectivity_curves, selectivity_table

POINTS: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
"""Budgets that are suppressed, as multiples of the shares top_mlp and top_attn."""
ASKED = 400
"""Test questions per task, where nothing else is said."""


@dataclass(frozen=True)
class MethodComparison:
    """Several methods on one model and the same questions."""

    scores: Mapping[str, NeuronScores]
    """Method -> its scores of the culture task's questions."""
    questions: Mapping[str, int]
    """Method -> how many questions its neurons were ranked on."""
    effects: ExactEffects
    sets: Mapping[str, tuple[NeuronSet, ...]]
    """Method -> its neurons at each budget, smallest first."""
    budgets: tuple[int, ...]
    """Neurons at each budget."""
    at: int
    """Index of the budget that is the shares themselves; sets are compared there."""
    base: EvaluationResult
    results: Mapping[str, tuple[EvaluationResult, ...]]
    """Method -> answers with its neurons suppressed, one per budget."""
    culture: tuple[str, ...]
    """Names of the tasks that are cultural."""
    scored: Mapping[str, int]
    """Method -> questions scored in all: with their controls, and those of the task held against neurons."""

    def agreement(self) -> pd.DataFrame:
        """Each method against the exact effects, by site and layer: see
        `culnig_tl.analyses.agreement.agreement`."""
        return agreement(self.scores, self.effects)

    def areas(self) -> pd.DataFrame:
        """One row per method: area under accuracy against neurons suppressed, in percent (the mean accuracy
        along the way).

        Columns area_culture, area_nlu (means over the tasks of each kind) and area_difference: area_culture -
        area_nlu. The row "unchanged" is what no suppression gives. The lower the difference, the more culture
        loses compared with other tasks. A method whose neurons break the model altogether lowers it too,
        where chance is lower on cultural tasks than on others: read it beside area_nlu.
        """
        curves: Any = self.curves()
        rows = {}
        for method, part in curves.groupby("method", sort=False):
            kinds = [area(part[part["culture"] == kind]) for kind in (True, False)]
            rows[method] = (*kinds, kinds[0] - kinds[1])
        base = curves[curves["neurons"] == 0].drop_duplicates("task")
        unchanged = [float(base.loc[base["culture"] == kind, "accuracy"].mean()) for kind in (True, False)]
        rows["unchanged"] = (*unchanged, unchanged[0] - unchanged[1])
        return pd.DataFrame.from_dict(
            rows, orient="index", columns=["area_culture", "area_nlu", "area_difference"]
        ).rename_axis("method")

    def selectivity(self) -> pd.DataFrame:
        """One row per method and budget: what culture loses against the worst other task, in points of
        P(answer); see `selectivity`."""
        return selectivity_curves(self._losses(), self.budgets, self.culture)

    def held_out(self) -> pd.DataFrame:
        """One row per method, and the best: the same at the size that was chosen on the other half of the
        questions."""
        return held_out(self._losses(), self.budgets, self.culture)

    def _losses(self) -> dict[str, list[Losses]]:
        return {
            method: [losses(self.base, result) for result in results]
            for method, results in self.results.items()
        }

    def table(self) -> pd.DataFrame:
        """One row per method: agreement with the exact effects over all neurons it scores and by site
        (Spearman), the number of questions its neurons were ranked on and scored in all, the areas, and
        columns of `selectivity_table`."""
        known: Any = self.agreement()
        known = known[known["layer"] == ALL]
        rows: dict[Any, dict[str, Any]] = {}
        for method, part in known.groupby("method", sort=False):
            by_site = part.set_index("site")
            whole = by_site.loc[ALL] if ALL in by_site.index else by_site.iloc[0]
            rows[method] = {
                "neurons": int(whole["neurons"]),
                **{c: float(whole[c]) for c in ("spearman", "pearson", "precision_1", "precision_5")},
                **{
                    site.value: float(by_site.loc[site.value, "spearman"])
                    for site in self.effect_sites
                    if site.value in by_site.index
                },
            }
        for method in self.results:  # a way of contrast has its method's scores, and no agreement of its own
            counts = {"questions": self.questions[method], "scored": self.scored[method]}
            rows[method] = {**rows.get(method, {}), **counts}
        return (
            pd.DataFrame.from_dict(rows, orient="index")
            .join(self.areas(), how="outer")
            .join(selectivity_table(self.selectivity()))
            .reindex([*self.results, "unchanged"])
            .rename_axis("method")
        )

    @property
    def effect_sites(self) -> tuple[Site, ...]:
        """Sites that exact effects are known of."""
        return tuple(dict.fromkeys(site for site, _ in self.effects.neurons.indices))

    def overlap(self) -> pd.DataFrame:
        """Method x method: Jaccard index of their neurons at the budget of the shares."""
        chosen = {method: sets[self.at] for method, sets in self.sets.items()}
        cells = [[one.jaccard(other) for other in chosen.values()] for one in chosen.values()]
        return pd.DataFrame(cells, index=pd.Index(list(chosen), name="method"), columns=list(chosen))

    def curves(self) -> pd.DataFrame:
        """One row per method, budget and task: neurons suppressed (0 is unchanged), culture, accuracy and se
        (percent)."""
        parts = []
        for method, results in self.results.items():
            for count, result in zip((0, *self.budgets), (self.base, *results)):
                table: Any = result.accuracy().reset_index()[["task", "accuracy", "se"]]
                parts.append(
                    table.assign(method=method, neurons=count, culture=table["task"].isin(self.culture))
                )
        return pd.concat(parts, ignore_index=True).reindex(
            columns=["method", "neurons", "task", "culture", "accuracy", "se"]
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table."""
        return {
            "methods": self.table().reset_index(),
            "agreement": self.agreement(),
            "overlap": self.overlap().reset_index(),
            "curves": self.curves(),
            "selectivity": self.selectivity(),
            "held-out": self.held_out().reset_index(),
        }

    def sentence(self) -> str:
        """Which method is best at what, and where CULNIG stands if it is not the best."""
        table: Any = self.table()
        base, table = table.loc["unchanged"], table.drop("unchanged")

        def say(column: str, label: str, *, lowest: bool = False) -> str:
            values = table[column].dropna().sort_values(ascending=lowest, kind="stable")
            if values.empty:
                return ""
            best = values.index[0]
            text = f"{best} {label.format(values.iloc[0], table.loc[best, 'area_nlu'])}"
            if "culnig" in values.index and best != "culnig":
                text += (
                    f"; culnig is number {values.index.get_loc('culnig') + 1} of {len(values)}, with"
                    f" {values['culnig']:.2f}"
                )
            return f"{text}."

        unchanged = (
            f"{base['area_difference']:.1f} unchanged; without culture {{1:.1f}}, {base['area_nlu']:.1f}"
            " unchanged"
        )
        said = (
            say(
                "spearman", "agrees best with the exact effects (Spearman {:.2f} over all neurons it scores)"
            ),
            say("precision_1", "finds most of the top 1% by effect ({:.2f})"),
            say(
                "area_difference",
                f"hurts culture most beyond tasks without culture (area difference {{0:.1f}}, {unchanged})",
                lowest=True,
            ),
        )
        return " ".join(filter(None, said))

    def __str__(self) -> str:
        chosen = self.held_out().round(2).to_string()
        return f"{self.table().round(3).to_string()}\n\n{chosen}\n\n{self.sentence()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table().round(3).to_html()


def area(curves: pd.DataFrame) -> float:
    """Area under the mean accuracy of some tasks against neurons suppressed, by trapezoids, over the largest
    number; NaN without tasks."""
    if not len(curves):
        return float("nan")
    accuracy: Any = curves.groupby("neurons")["accuracy"].mean()
    mean = accuracy.sort_index()
    counts = mean.index.to_numpy(float)
    return float(trapezoid(mean.to_numpy(), counts) / counts[-1])


def select_top(
    scores: NeuronScores,
    mlp: int,
    attn: int,
    *,
    control: NeuronScores | None = None,
    without: NeuronSet | None = None,
    contrast: Contrast | None = None,
    kind: str = "method",
) -> NeuronSet:
    """The best neurons by any method: the `mlp` highest of the MLP pool and the `attn` highest of the pooled
    q, k, v neurons.

    Scores of the gate alone give mlp + attn neurons of the gate: as many as other methods give.

    Args:
        control: scores of the control by the same method; subtracted, per cluster.
        without: neurons that are not to be chosen.
        contrast: scores of tasks without culture, by the same method, to hold against a neuron.
        kind: what the set's provenance calls it.
    """
    left_out = without.keys() if without is not None else set()
    pools = {name: NeuronPool.of_scores(scores, scores.sites, name) for name in ("mlp", "attn")}
    counts = {"mlp": mlp, "attn": attn} if pools["attn"].size else {"mlp": mlp + attn, "attn": 0}
    tables = []
    for name, pool in pools.items():
        if not pool.size:
            continue
        values = pool.total(scores) / scores.clusters
        if control is not None:
            values -= pool.total(control) / control.clusters
        rows = pool.table(np.arange(pool.size))
        barred = np.array([key in left_out for key in zip(rows["site"], rows["layer"], rows["neuron"])])
        if contrast is not None:
            values, allowed = contrast.apply(values, pool)
            barred |= ~allowed
        chosen = ranked(np.where(barred, -np.inf, values), min(counts[name], int((~barred).sum())))
        tables.append(pool.table(np.sort(chosen), values))
    about = scores.metadata
    provenance = Provenance(
        kind,
        about.get("model"),
        about.get("revision"),
        {scores.task: str(about.get("fingerprint"))},
        {"mlp": mlp, "attn": attn},
        pool={site.value: width for site, width in scores.widths.items()},
        layers=scores.layers,
        version=__version__,
    )
    return NeuronSet(pd.concat(tables), provenance)


def methods(
    model: HookedModel | str | Path,
    tasks: Sequence[Task | str],
    *,
    reading: Task | str | None = None,
    language: Task | str | None = None,
    contrast: Task | str | None = None,
    ways: Sequence[Way] = ("filter",),
    methods: Iterable[str] | None = None,
    sample: int | None = None,
    limit: int | None = QUESTIONS,
    ranked: int | None = None,
    asked: int | None = ASKED,
    top_mlp: float | None = None,
    top_attn: float | None = None,
    seed: int = 0,
    form: Form = "letters",
    normalise: Normalise = "unconditional",
    chat_template: bool = False,
    wordings: str | Path | None = None,
    allow_regions: bool = False,
    data_dir: str | Path | None = None,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> MethodComparison:
    """Every method on the same sites, model and questions: agreement with exact effects, accuracy as its
    neurons are suppressed, overlap.

    Args:
        model: loaded, or its name or folder.
        tasks: whole; neurons are found on the first that has cultural questions with a control.
        reading: neuron split of country reading comprehension, or the task's name; the study's by default.
        language: task that CAPE finds language neurons on; the reading task by default.
        contrast: task without culture to hold against neurons; one half of it (`halves`) is scored, and the
            other asked where it is among `tasks`.
        ways: of `contrast`: "filter", "subtract", "ranks".
        methods: names; by default all that score the form.
        sample: neurons per site and layer that are zeroed for exact effects; all of a small model's by
            default.
        limit: questions that neurons are scored and zeroed on.
        ranked: questions that all but the costly methods (ig, ig-all, atp-qk) rank neurons on; `limit` by
            default.
        asked: test questions per task, and questions of the reading and language tasks.
        top_mlp, top_attn: shares of the budget 1; a study's of this model by default.
        seed: of the sample and of random scores.
        form, normalise, chat_template, wordings, allow_regions: of tasks that are given by name, as in
            `load_task`.
        data_dir: local mirror of the Hub's data sets, for tasks that are named.

    Raises:
        StudyError: no task with cultural questions and a control, or a model with more than 20,000 neurons
            and no `sample`.
        ScoreError: an unknown method.
    """
    how: dict[str, Any] = {"form": form, "normalise": normalise, "chat_template": chat_template}
    how |= {"wordings": wordings, "allow_regions": allow_regions}
    names = parse_methods(name for name, m in METHODS.items() if m.cloze or form == "letters")
    names = names if methods is None else parse_methods(methods)
    whole = [task_of(task, data_dir, **how) for task in tasks]
    culture = _culture_of(whole)
    against = None
    if contrast is not None:
        against, rest = halves(task_of(contrast, data_dir, **how))
        against = against.limit(limit if ranked is None else ranked)
        whole = [rest if task.name == against.name else task for task in whole]
    beside = None
    if language is not None:
        beside = task_of(language, data_dir, **how).filter(lambda q: q.split in (None, "neuron")).limit(asked)
    loaded, found_on = model_of(model), culture.neuron_split()
    usual = defaults_for(describe(loaded).name)
    how |= {"split": "neuron", "limit": asked}
    read = task_of(usual.reading if reading is None else reading, data_dir, **how)
    questions = found_on.limit(limit)
    return compare_methods(
        loaded,
        questions,
        read,
        [task.test_split().limit(asked) for task in whole],
        effects_of(loaded, questions, sample=sample, seed=seed, progress=progress),
        methods=names,
        ranked_on=None if ranked is None else found_on.limit(ranked),
        language=beside,
        contrast=against,
        ways=ways,
        top_mlp=usual.top_mlp if top_mlp is None else top_mlp,
        top_attn=usual.top_attn if top_attn is None else top_attn,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )


def _culture_of(tasks: Sequence[Task]) -> Task:
    for task in tasks:
        if task.culture and task.has_control:
            return task
    listed = ", ".join(task.name for task in tasks)
    raise StudyError(f"none of the tasks {listed} has cultural questions with a control: add blend")


def compare_methods(
    model: HookedModel,
    culture: Task,
    reading: Task | None,
    tasks: Sequence[Task],
    effects: ExactEffects,
    *,
    methods: Iterable[str] = tuple(METHODS),
    ranked_on: Task | None = None,
    language: Task | None = None,
    contrast: Task | None = None,
    ways: Sequence[Way] = ("filter",),
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    points: Sequence[float] = POINTS,
    batch_size: int | str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> MethodComparison:
    """Scores by every method, compares with the exact effects, suppresses each method's neurons in growing
    numbers and asks the tasks.

    Args:
        culture: neuron split of the culture task, with a control; its questions are scored by every method.
        reading: neuron split of country reading comprehension; None leaves every neuron in the ranking.
        tasks: to ask, cultural ones and others; other questions than those of `culture`.
        effects: what `exact_effects` returned, ideally on the same questions.
        ranked_on: more questions of the same task and split, which all but the costly methods (ig, ig-all,
            atp-qk) rank neurons on; the table says on how many each does. Without it all rank on `culture`.
        language: for cape, the task that language neurons are found on; `reading` without it.
        contrast: questions without culture to hold against neurons; other questions than those of `tasks`.
        ways: what is done with them, each beside the plain method.
        top_mlp, top_attn, drop_reading: shares as in `select_general`.
        points: budgets, as multiples of the shares; 1 is added where it is missing.
        seed: of random scores.

    Raises:
        ScoreError: no task to ask, unknown methods, a budget of no neuron.
    """
    if not tasks:
        raise ScoreError("no task to ask: name at least one")
    names, factors = parse_methods(methods), sorted({*points, 1.0})
    counts = _budgets(model, factors, top_mlp, top_attn)
    how: dict[str, Any] = {"batch_size": batch_size, "progress": progress}

    def score(task: Task, names: Sequence[str], beside: Task | None = None) -> dict[str, NeuronScores]:
        return score_neurons(model, task, method=list(names), language=beside, seed=seed, **how)  # type: ignore[return-value]

    beside = language or reading
    scores = score(culture, names, beside)
    ranking, controls = dict(scores), {}
    for questions, costly in ((culture, True), (ranked_on or culture, False)):
        here = [name for name in names if METHODS[name].costly == costly]
        if here and questions is not culture:
            ranking |= score(questions, here, beside)
        if contrasted := [name for name in here if METHODS[name].contrast]:
            controls |= score(questions.control(), contrasted)
    removed = None
    if reading is not None and drop_reading > 0:
        removed = _highest(score_neurons(model, reading, **how), drop_reading)
    plain = [name for name in names if METHODS[name].contrast] if contrast is not None else []
    others = score(contrast, plain) if contrast is not None and plain else {}
    sets, scored = _selected(ranking, controls, others, ways, removed, counts)
    numbered = {f"{name} {i}": neurons for name, several in sets.items() for i, neurons in enumerate(several)}
    answers = compare_sets(model, tasks, numbered, **how)
    return MethodComparison(
        scores=scores,
        questions={name: sum(ranking[name.partition(", ")[0]].questions) for name in sets},
        effects=effects,
        sets=sets,
        budgets=tuple(map(sum, counts)),
        at=factors.index(1.0),
        base=answers.base,
        results={name: tuple(answers.results[f"{name} {i}"] for i in range(len(factors))) for name in sets},
        culture=tuple(task.name for task in tasks if task.culture),
        scored=scored,
    )


def _selected(
    ranking: Mapping[str, NeuronScores],
    controls: Mapping[str, NeuronScores],
    others: Mapping[str, NeuronScores],
    ways: Sequence[Way],
    removed: NeuronSet | None,
    counts: Sequence[tuple[int, int]],
) -> tuple[dict[str, tuple[NeuronSet, ...]], dict[str, int]]:
    """(sets of every budget, questions scored for them), by method, and by method and way of contrast."""
    sets: dict[str, tuple[NeuronSet, ...]] = {}
    scored: dict[str, int] = {}
    for name, given in ranking.items():
        control, used = controls.get(name), sum(given.questions)
        how_often = used + (0 if control is None else sum(control.questions))
        against = {name: None} | {
            f"{name}, {way}": Contrast((others[name],), way) for way in ways if name in others
        }
        for label, held in against.items():
            scored[label] = how_often + (0 if held is None else sum(others[name].questions))
            more: dict[str, Any] = {"control": control, "without": removed, "contrast": held, "kind": label}
            sets[label] = tuple(select_top(given, *count, **more) for count in counts)
    return sets, scored


def _budgets(
    model: HookedModel, factors: Sequence[float], top_mlp: float, top_attn: float
) -> list[tuple[int, int]]:
    """(MLP neurons, attention neurons) of each budget. Raises `ScoreError` where one is of no neuron."""
    info = describe(model)
    mlp, attn = (
        sum(info.count(site) for site in info.widths if site in SITES and site.pool == pool)
        for pool in ("mlp", "attn")
    )
    counts = [
        (share_count(mlp, factor * top_mlp), share_count(attn, factor * top_attn)) for factor in factors
    ]
    if not all(map(sum, counts)):
        raise ScoreError(
            f"a budget of {factors[0]:g} times the shares is no neuron: take larger shares or points"
        )
    return counts


def _highest(scores: NeuronScores, share: float) -> NeuronSet:
    """The top share of each pool."""
    pools = [NeuronPool.of_scores(scores, scores.sites, name) for name in ("mlp", "attn")]
    tables = [pool.table(ranked(pool.total(scores), share_count(pool.size, share))) for pool in pools]
    return NeuronSet(pd.concat(tables))
