"""The methods side by side: how true each is, what suppressing its neurons does, and how far they agree.

Every method scores the same questions (unless the cheap ones are given more to be ranked on), and its best neurons are suppressed in growing numbers: as many for every method, of the MLP pool and of
the pool of q, k and v in the same proportion (methods of the gate alone take the same number there). Methods that CULNIG's contrast makes
sense for (`Method.contrast`) are ranked by their score a question less that of the control. Neurons that serve reading a country's name, the top
share r by CULNIG on the reading task, are out of the ranking for every method.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from ..data.neurons import SITES, NeuronSet, Provenance, Site
from ..data.pools import NeuronPool, ranked, share_count
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..defaults import DROP_READING, TOP_ATTN, TOP_MLP
from ..engine.models import describe
from ..errors import ScoreError
from ..method.evaluation import evaluate_sets
from ..method.exact import ExactEffects
from ..method.methods import METHODS, parse_methods, score_methods
from ..method.score import score_neurons
from ..tasks.question import Task
from ..version import __version__
from .agreement import ALL, agreement

POINTS: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
"""Budgets that are suppressed, as multiples of the shares top_mlp and top_attn."""


@dataclass(frozen=True)
class MethodComparison:
    """Several methods on one model and the same questions."""

    scores: Mapping[str, NeuronScores]
    """Method -> its scores of the culture task's questions."""
    questions: Mapping[str, int]
    """Method -> how many questions its neurons were ranked on."""
    effects: ExactEffects
    sets: Mapping[str, tuple[NeuronSet, ...]]
    """Method -> its neurons at each budget, the smallest first."""
    budgets: tuple[int, ...]
    """Neurons at each budget."""
    at: int
    """Which budget is that of the shares themselves (where sets are compared)."""
    base: EvaluationResult
    results: Mapping[str, tuple[EvaluationResult, ...]]
    """Method -> answers with its neurons suppressed, a budget each."""
    culture: tuple[str, ...]
    """Names of the tasks that are cultural."""

    def agreement(self) -> pd.DataFrame:
        """Each method against the exact effects, by site and layer: see `culnig_tl.analyses.agreement.agreement`."""
        return agreement(self.scores, self.effects)

    def areas(self) -> pd.DataFrame:
        """One row a method: areas under accuracy against number of neurons suppressed, in percent (the mean accuracy along the way).

        Columns area_culture, area_nlu (means over the tasks of each kind) and area_difference: area_culture - area_nlu. The row "unchanged" says what
        no suppression gives. The lower the difference, the more culture loses than other tasks do; but a method whose neurons break the model altogether
        lowers it too, where chance is lower on cultural tasks than on the others: read it beside area_nlu.
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

    def table(self) -> pd.DataFrame:
        """One row a method: agreement with the exact effects over all neurons it scores and by site (Spearman), the questions its neurons were
        ranked on, and the areas."""
        known: Any = self.agreement()
        known = known[known["layer"] == ALL]
        rows = {}
        for method, part in known.groupby("method", sort=False):
            by_site = part.set_index("site")
            whole = by_site.loc[ALL] if ALL in by_site.index else by_site.iloc[0]
            row: dict[str, Any] = {"neurons": int(whole["neurons"]), "questions": self.questions[method]}
            row |= {
                column: float(whole[column])
                for column in ("spearman", "pearson", "precision_1", "precision_5")
            }
            row |= {
                site.value: float(by_site.loc[site.value, "spearman"])
                for site in self.effect_sites
                if site.value in by_site.index
            }
            rows[method] = row
        return (
            pd.DataFrame.from_dict(rows, orient="index")
            .join(self.areas(), how="outer")
            .reindex([*self.scores, "unchanged"])
            .rename_axis("method")
        )

    @property
    def effect_sites(self) -> tuple[Site, ...]:
        """Sites that exact effects are known of."""
        return tuple(dict.fromkeys(site for site, _ in self.effects.neurons.indices))

    def overlap(self) -> pd.DataFrame:
        """Jaccard index of every two methods' neurons at the budget of the shares."""
        chosen = {method: sets[self.at] for method, sets in self.sets.items()}
        cells = [[one.jaccard(other) for other in chosen.values()] for one in chosen.values()]
        return pd.DataFrame(cells, index=pd.Index(list(chosen), name="method"), columns=list(chosen))

    def curves(self) -> pd.DataFrame:
        """One row a (method, budget, task): neurons suppressed (0 is unchanged), culture, accuracy, se."""
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

    def figure(self) -> Any:
        """Agreement with the exact effects by site, as a Plotly figure."""
        from .. import figures

        return figures.method_agreement(self.agreement())

    def figures(self) -> dict[str, Any]:
        """Name -> Plotly figure."""
        from .. import figures

        return {
            "methods": self.figure(),
            "methods-curves": figures.method_curves(self.curves()),
            "methods-overlap": figures.method_overlap(self.overlap(), self.budgets[self.at]),
        }

    def sentence(self) -> str:
        """Which method is best at what, and CULNIG's place where it is another: whatever that is."""
        table: Any = self.table()
        base, table = table.loc["unchanged"], table.drop("unchanged")

        def say(column: str, label: str, *, lowest: bool = False) -> str:
            values = table[column].dropna().sort_values(ascending=lowest, kind="stable")
            if values.empty:
                return ""
            best = values.index[0]
            text = f"{best} {label.format(values.iloc[0], table.loc[best, 'area_nlu'])}"
            if "culnig" in values.index and best != "culnig":
                text += f"; culnig is number {values.index.get_loc('culnig') + 1} of {len(values)}, with {values['culnig']:.2f}"
            return f"{text}."

        unchanged = f"{base['area_difference']:.1f} unchanged; without culture {{1:.1f}}, {base['area_nlu']:.1f} unchanged"
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
        return f"{self.table().round(3).to_string()}\n{self.sentence()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table().round(3).to_html()


def area(curves: pd.DataFrame) -> float:
    """Area under the mean accuracy of some tasks against neurons suppressed, by trapezoids, over the largest number; NaN without tasks."""
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
    kind: str = "method",
) -> NeuronSet:
    """The best neurons by any method: the `mlp` highest of the MLP pool and the `attn` highest of the pooled q, k, v neurons.

    Scores of the gate alone give mlp + attn neurons of the gate: as many as other methods do.

    Args:
        control: scores of the control by the same method, subtracted, a cluster against a cluster.
        without: neurons that are not to be chosen.
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
        tables.append(pool.table(np.sort(ranked(np.where(barred, -np.inf, values), counts[name])), values))
    about = scores.metadata
    provenance = Provenance(
        kind, about.get("model"), about.get("revision"), {scores.task: str(about.get("fingerprint"))}, {"mlp": mlp, "attn": attn},
        pool={site.value: width for site, width in scores.widths.items()}, layers=scores.layers, version=__version__,
    )  # fmt: skip
    return NeuronSet(pd.concat(tables), provenance)


def compare_methods(
    model: Any,
    culture: Task,
    reading: Task | None,
    tasks: Sequence[Task],
    effects: ExactEffects,
    *,
    methods: Iterable[str] = tuple(METHODS),
    ranked_on: Task | None = None,
    language: Task | None = None,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    points: Sequence[float] = POINTS,
    batch_size: int | str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> MethodComparison:
    """Scores by every method, compares with the exact effects, suppresses each method's neurons in growing numbers and asks the tasks.

    Args:
        culture: neuron split of the culture task, with a control; its questions are scored by every method.
        reading: neuron split of country reading comprehension; None leaves every neuron in the ranking.
        tasks: to ask, cultural ones and others, other questions than those of `culture`.
        effects: what `exact_effects` returned, best on the same questions.
        ranked_on: more questions of the same task and split, that all but the costly methods (ig, ig-all, atp-qk) are ranked on; the table says on how
            many each is. `culture` without it: then all are ranked on the same.
        language: for cape, the task that language neurons are found on; `reading` without it.
        top_mlp, top_attn, r: shares as in `select_general`.
        points: budgets, as multiples of the shares; 1 is added where it is missing.

    Raises:
        ScoreError: no task to ask, unknown methods, a budget of no neuron.
    """
    if not tasks:
        raise ScoreError("no task to ask: name one at least")
    names = parse_methods(methods)
    factors = sorted({*points, 1.0})
    beside = language or reading
    common: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    scores = score_methods(model, culture, names, language=beside, seed=seed, **common)
    ranking, controls = dict(scores), {}
    for questions, costly in ((culture, True), (ranked_on or culture, False)):
        here = [name for name in names if METHODS[name].costly == costly]
        if here and questions is not culture:
            ranking |= score_methods(model, questions, here, language=beside, seed=seed, **common)
        contrasted = [name for name in here if METHODS[name].contrast]
        if contrasted:
            controls |= score_methods(model, questions.control(), contrasted, seed=seed, **common)
    removed = None
    if reading is not None and r > 0:
        filtering = score_neurons(model, reading, **common)
        tops = [NeuronPool.of_scores(filtering, filtering.sites, name) for name in ("mlp", "attn")]
        tables = [pool.table(ranked(pool.total(filtering), share_count(pool.size, r))) for pool in tops]
        removed = NeuronSet(pd.concat(tables))
    info = describe(model)
    sizes = [
        info.layers * sum(w for site, w in info.widths.items() if site in SITES and site.pool == pool)
        for pool in ("mlp", "attn")
    ]
    counts = [
        (share_count(sizes[0], factor * top_mlp), share_count(sizes[1], factor * top_attn))
        for factor in factors
    ]
    sets = {
        name: tuple(
            select_top(given, *count, control=controls.get(name), without=removed, kind=name)
            for count in counts
        )
        for name, given in ranking.items()
    }
    budgets = tuple(map(sum, counts))
    if not all(budgets):
        raise ScoreError(
            f"a budget of {factors[0]:g} times the shares is no neuron: take larger shares or points"
        )
    wanted = {
        "unchanged": None,
        **{f"{name} {i}": neurons for name, several in sets.items() for i, neurons in enumerate(several)},
    }
    answers = evaluate_sets(model, tasks, wanted, **common)
    return MethodComparison(
        scores=scores,
        questions={name: sum(given.questions) for name, given in ranking.items()},
        effects=effects,
        sets=sets,
        budgets=budgets,
        at=factors.index(1.0),
        base=answers["unchanged"],
        results={name: tuple(answers[f"{name} {i}"] for i in range(len(factors))) for name in sets},
        culture=tuple(task.name for task in tasks if task.culture),
    )
