"""How true an attribution is: its scores against the exact effect of zeroing each neuron."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from ..data.neurons import SITES, Site
from ..data.pools import share_count
from ..data.scores import NeuronScores
from ..engine.models import HookedModel, describe
from ..errors import ScoreError, StudyError
from ..method.exact import ExactEffects, all_neurons, exact_effects, stratified_sample
from ..method.score import score_neurons
from ..tasks.question import Form, Normalise, Task
from .inputs import model_of, task_of

ALL = "all"
"""In a table: all sites together, or all layers."""
TOP_SHARES: tuple[float, ...] = (0.01, 0.05)
"""Shares of the neurons, highest by score, whose precision is given."""


SMALL = 20_000
"""Models with at most this many neurons have every one of them zeroed."""
QUESTIONS = 64
"""Questions that neurons are zeroed on, where nothing else is said."""


@dataclass(frozen=True)
class Truth:
    """What each neuron really costs, and how far CULNIG's scores agree with it."""

    effects: ExactEffects
    agreement: pd.DataFrame
    """What `agreement` says of CULNIG with the maximum and with the sum over tokens."""

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table."""
        return {"truth": self.effects.to_dataframe(), "agreement": self.agreement}

    def __str__(self) -> str:
        whole = self.agreement[self.agreement["layer"] == ALL].drop(columns="layer")
        return f"{self.effects}\n{whole.round(3).to_string(index=False)}"

    __repr__ = __str__


def truth(
    model: HookedModel | str | Path,
    task: Task | str = "miniculture",
    *,
    sites: Iterable[Site | str] = SITES,
    sample: int | None = None,
    limit: int | None = QUESTIONS,
    seed: int = 0,
    form: Form = "letters",
    normalise: Normalise = "unconditional",
    chat_template: bool = False,
    wordings: str | Path | None = None,
    allow_regions: bool = False,
    data_dir: str | Path | None = None,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> Truth:
    """Zeroes neurons one at a time, and compares what each costs P(answer) with its score.

    Args:
        model: loaded, or its name or folder.
        task: whose questions are asked: of a task that is named its neuron split.
        sites: of the neurons.
        sample: random neurons per site and layer; all of a small model's by default.
        limit: questions.
        seed: of the sample.
        form, normalise, chat_template, wordings, allow_regions: of a task that is named, as in `load_task`.
        data_dir: local mirror of the Hub's data sets, for a task that is named.

    Raises:
        StudyError: a model with more than 20,000 neurons and no `sample`.
    """
    how: dict[str, Any] = {"form": form, "normalise": normalise, "chat_template": chat_template}
    how |= {"wordings": wordings, "allow_regions": allow_regions}
    questions = task_of(task, data_dir, split="neuron", **how).limit(limit)
    loaded, wanted = model_of(model), tuple(sites)
    effects = effects_of(loaded, questions, sites=wanted, sample=sample, seed=seed, progress=progress)
    run: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    scores = score_neurons(loaded, questions, method=["culnig", "culnig-sum"], sites=wanted, **run)
    return Truth(effects, agreement(scores, effects))  # type: ignore[arg-type]


def effects_of(
    model: HookedModel,
    questions: Task,
    *,
    sites: Iterable[Site | str] = SITES,
    sample: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> ExactEffects:
    """The exact effects of all neurons of a small model, or of a sample of so many per site and layer.

    Raises:
        StudyError: a model with more than 20,000 neurons and no `sample`.
    """
    info, wanted = describe(model), tuple(sites)
    if sample is not None:
        chosen = stratified_sample(info, wanted, each=sample, seed=seed)
        return exact_effects(model, questions, chosen, progress=progress)
    chosen = all_neurons(info, wanted)
    if len(chosen) > SMALL:
        raise StudyError(
            f"{info.name} has {len(chosen):,} neurons at {', '.join(map(str, wanted))}: "
            "give a sample, the number to zero per site and layer (e.g. 16)"
        )
    return exact_effects(model, questions, chosen, progress=progress)


def agreement(scores: Mapping[str, NeuronScores], effects: ExactEffects) -> pd.DataFrame:
    """Each method's scores, summed over the countries, against the mean exact drop of P(answer), neuron by
    neuron.

    Args:
        scores: method -> scores, ideally of the same questions as the effects.
        effects: of all neurons, or of a sample of them: precision is then that within the sample.

    Returns:
        One row per method, site and layer, "all" for all sites or layers together: neurons, spearman,
        pearson, and precision_1 and precision_5, the share of the neurons in the top 1% (5%) by score that
        are in the top 1% (5%) by effect. NaN where it is undefined: equal scores, or too few neurons for one
        to be in the top share. Sites that a method does not score are left out, also of "all".

    Raises:
        ScoreError: scores of another model.
    """
    table = effects.neurons.table
    rows = []
    for method, given in scores.items():
        known, exact = given.metadata.get("revision"), effects.neurons.provenance.revision
        if known != exact:
            raise ScoreError(
                f"scores of {method!r} and exact effects are of different models: revision {known!r} and"
                f" {exact!r}"
            )
        scored = table["site"].isin([site.value for site in given.sites]).to_numpy()
        here = table.loc[scored]
        values = scores_of(given, here)
        truth = effects.mean[scored]
        sites = list(dict.fromkeys(here["site"]))
        for site in [ALL, *sites] if len(sites) > 1 else sites:
            at = np.full(len(here), True) if site == ALL else (here["site"] == site).to_numpy()
            for layer in (ALL, *sorted(set(here["layer"][at]))):
                both = at if layer == ALL else at & (here["layer"] == layer).to_numpy()
                rows.append((method, site, layer, int(both.sum()), *agree(values[both], truth[both])))
    columns = [
        "method",
        "site",
        "layer",
        "neurons",
        "spearman",
        "pearson",
        *(f"precision_{100 * share:g}" for share in TOP_SHARES),
    ]
    return pd.DataFrame(rows, columns=columns)


def scores_of(scores: NeuronScores, neurons: pd.DataFrame) -> Float[np.ndarray, " neuron"]:
    """The scores of some neurons (columns site, layer, neuron), summed over the countries."""
    values = np.empty(len(neurons))
    for name in neurons["site"].unique():
        at = (neurons["site"] == name).to_numpy()
        values[at] = scores.total(Site(name))[neurons["layer"][at], neurons["neuron"][at]]
    return values


def agree(values: Float[np.ndarray, " neuron"], truth: Float[np.ndarray, " neuron"]) -> tuple[float, ...]:
    """(Spearman, Pearson, precision in each of the top shares); NaN where one side is constant."""
    if np.ptp(values) == 0 or np.ptp(truth) == 0:  # nothing is ranked above anything
        return (float("nan"),) * (2 + len(TOP_SHARES))
    correlations: list[Any] = [stats.spearmanr(values, truth)[0], stats.pearsonr(values, truth)[0]]
    return (*map(float, correlations), *(precision(values, truth, share) for share in TOP_SHARES))


def precision(
    values: Sequence[float] | np.ndarray, truth: Sequence[float] | np.ndarray, share: float
) -> float:
    """Of the top share by value, the part that is in the top share of the truth, 0 to 1; NaN where that share
    is less than one neuron.

    Ties go to the earlier neuron.
    """
    count = share_count(len(values), share)
    if not count:
        return float("nan")
    best, true = (np.argsort(-np.asarray(v), kind="stable")[:count] for v in (values, truth))
    return len(np.intersect1d(best, true)) / count
