"""`plot` draws any result, `plots` all that there is to draw of one: data and analyses know no figures."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, Literal

import plotly.graph_objects as go

from ..analyses.agreement import Truth
from ..analyses.checkpoints import CheckpointComparison
from ..analyses.claim import Claim
from ..analyses.compare_sets import ComparedSets
from ..analyses.crossing import CountryDrops
from ..analyses.enhancing import Enhancement
from ..analyses.methods import MethodComparison
from ..analyses.parts import Parts
from ..analyses.regions import RegionAnswers
from ..analyses.stability import Stability
from ..analyses.sweep import Sweep
from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..errors import CulnigError
from ..method.closeup import PromptScores
from ..study.comparison import Comparison
from ..study.config import RANDOM
from ..study.study import Study
from .accuracy import accuracy_bars
from .checkpoints import checkpoint_heatmap
from .crossing import cross_effects, drop_matrix
from .drops import drop_chart
from .gallery import figures_of
from .heatmaps import layer_heatmap
from .layers import layer_distribution
from .methods import method_agreement, method_curves, method_overlap, method_selectivity
from .prompts import token_heatmap
from .repeats import enhancement_curves, returns_histogram
from .thresholds import threshold_curves

_NAMES: dict[type, str] = {
    CheckpointComparison: "checkpoints",
    ComparedSets: "cross-effects",
    CountryDrops: "countries",
    Enhancement: "enhance",
    RegionAnswers: "regions",
}
"""Result -> the name of its figure's file, where that is not the result's own name."""


@singledispatch
def plot(result: Any, **options: Any) -> go.Figure:
    """Draws a result: the figure that shows best what was found.

        NeuronSet             neurons per layer; options of `layer_distribution`
        NeuronScores          layer x neuron; options of `layer_heatmap`
        PromptScores          layer x token; options of `token_heatmap`
        EvaluationResult      accuracy by task; options of `accuracy_bars`
        Study, Claim          change in accuracy by task, beside random sets and the rival
        Comparison            change in accuracy by task, beside random sets
        ComparedSets          points lost beyond random sets, whose neurons x which task
        Parts, RegionAnswers  accuracy by task, by region
        CountryDrops          whose neurons x whose questions; show="drop" or "rank"
        Sweep                 accuracy as thresholds move
        Enhancement           change in accuracy by factor
        Stability             how often neurons return
        MethodComparison      agreement with exact effects; options of `method_agreement`
        Truth                 the same, of CULNIG alone
        CheckpointComparison  layer x checkpoint

    Floors above register theirs with ``@plot.register``.

    Raises:
        CulnigError: anything else; and what the figure itself raises.
    """
    known = sorted(kind.__name__ for kind in plot.registry if kind is not object)
    raise CulnigError(f"a {type(result).__name__} cannot be drawn: give one of {', '.join(known)}")


@singledispatch
def plots(result: Any) -> dict[str, go.Figure]:
    """Name of a file -> figure: all that there is to draw of a result, which for most is what `plot` draws.

    Raises:
        CulnigError: as `plot`.
    """
    known = (name for kind, name in _NAMES.items() if isinstance(result, kind))
    return {next(known, type(result).__name__.lower()): plot(result)}


plot.register(NeuronSet, layer_distribution)
plot.register(NeuronScores, layer_heatmap)
plot.register(PromptScores, token_heatmap)
plot.register(EvaluationResult, accuracy_bars)
plot.register(Study, lambda result: figures_of(result)["drops"])
plot.register(Comparison, lambda result: drop_chart(result.drops))
plot.register(ComparedSets, lambda result: cross_effects(result.table()))
plot.register(Parts, lambda result: accuracy_bars({"unchanged": result.base, **result.results}))
plot.register(RegionAnswers, lambda result: accuracy_bars(result.results, by="country"))
plot.register(Sweep, lambda result: threshold_curves(result.curves()))
plot.register(Enhancement, lambda result: enhancement_curves(result.rows))
plot.register(Stability, lambda result: returns_histogram(result.neurons))
plot.register(Truth, lambda result, **options: method_agreement(result.agreement, **options))
plot.register(MethodComparison, lambda result, **options: method_agreement(result.agreement(), **options))


@plot.register
def _(result: CountryDrops, *, show: Literal["drop", "rank"] = "drop") -> go.Figure:
    return drop_matrix(result.unchanged, result.suppressed, show=show)


@plot.register
def _(result: Claim) -> go.Figure:
    found = result.against_random
    kind = RANDOM["layer"] if RANDOM["layer"] in found else next(iter(found))
    name = f"as many neurons of {result.rival_task}"
    return drop_chart(found[kind].drops, rival=result.against_rival.drops, rival_name=name)


@plot.register
def _(result: CheckpointComparison) -> go.Figure:
    deep = {study.info["layers"] for study in result.studies.values()}
    return checkpoint_heatmap(result.sets, scale="linear" if len(deep) == 1 else "column")


plots.register(Study, figures_of)


@plots.register
def _(result: Sweep) -> dict[str, go.Figure]:
    return {"sweep" if result.country is None else f"sweep {result.country}": plot(result)}


@plots.register
def _(result: MethodComparison) -> dict[str, go.Figure]:
    return {
        "methods": plot(result),
        "methods-curves": method_curves(result.curves()),
        "methods-selectivity": method_selectivity(result.selectivity()),
        "methods-overlap": method_overlap(result.overlap(), result.budgets[result.at]),
    }
