"""The exact effect of every neuron: P(answer) lost when it alone is zeroed, at all positions, on each
question.

    effect_n(x, y) = P(y|x) - P(y|x, n = 0)

What attribution estimates without running it. Every question is one row up to the ablated layer and one row
per neuron from there on (see `fanout`), so a small model's every neuron can be tried; of a larger one take
`stratified_sample`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from .. import io
from ..data.neurons import SITES, NeuronSet, Provenance, Site
from ..data.statistics import clustered_mean
from ..engine.checkpoint import Checkpoint
from ..engine.cloze import asked_of
from ..engine.models import HookedModel, ModelInfo, describe, sites_of
from ..engine.probe import Probe
from ..engine.run import Batch, State, Work, run_pass
from ..errors import NeuronError, ScoreError
from ..progress import Advance
from ..tasks.question import Task
from ..version import __version__
from .ablation import check_fits
from .asking import asking, asking_one
from .fanout import ask_rows, fans_out, rows_that_fit, zeroing


@dataclass(frozen=True)
class ExactEffects:
    """What zeroing each of some neurons costs each question."""

    drops: Float[np.ndarray, "question neuron"]
    """P(answer) unchanged minus P(answer) with that neuron zeroed."""
    p_answer: Float[np.ndarray, " question"]
    """P(answer) of the unchanged model."""
    neurons: NeuronSet
    """The columns; its score is the mean drop."""
    task: Task

    @property
    def mean(self) -> Float[np.ndarray, " neuron"]:
        """Mean drop of P(answer) over the questions: the effect that attributions are compared with."""
        return self.drops.mean(axis=0, dtype=np.float64)

    def to_dataframe(self) -> pd.DataFrame:
        """One row per neuron: site, layer, neuron, effect, se (over clusters of questions)."""
        clusters = np.array([q.cluster for q in self.task])
        errors = [clustered_mean(column.astype(float), clusters)[1] for column in self.drops.T]
        return self.neurons.table[["site", "layer", "neuron"]].assign(effect=self.mean, se=errors)

    def save(self, path: str | Path, **more: Any) -> Path:
        """Writes `to_dataframe` as .parquet or .csv, with model, questions and `more` in the Parquet
        header."""
        path = Path(path)
        table = self.to_dataframe()
        if path.suffix == ".csv":
            return io.write(path, io.csv_of(table).encode())
        if path.suffix != ".parquet":
            raise ScoreError(f"{path.name}: exact effects are saved as .parquet or .csv")
        import pyarrow as pa

        known = self.neurons.provenance
        about = {
            "model": known.model,
            "revision": known.revision,
            "tasks": dict(known.tasks),
            "questions": len(self.task),
            "form": self.task.form,
            **more,
        }
        return io.write_parquet(path, pa.Table.from_pandas(table, preserve_index=False), about)

    def __str__(self) -> str:
        worst = self.neurons.top(1).iloc[0]
        return (
            f"ExactEffects: {self.drops.shape[1]:,} neurons zeroed one at a time on {self.drops.shape[0]:,}"
            f" questions of {self.task.name}; mean P(answer) {self.p_answer.mean():.3f}; the largest mean"
            f" drop is {worst['score']:.3f} ({worst['site']}, layer {worst['layer']}, {worst['neuron']})"
        )

    __repr__ = __str__


def exact_effects(
    model: HookedModel,
    task: Task,
    neurons: NeuronSet | None = None,
    *,
    sites: Iterable[Site | str] = SITES,
    progress: bool | Advance = True,
    checkpoint: str | Path | Checkpoint | None = None,
    resume: bool = False,
) -> ExactEffects:
    """Zeroes neurons one at a time and measures P(answer).

    Args:
        task: a sample of questions, e.g. ``load_task("miniculture", split="neuron", limit=64)``.
        neurons: which; all of `sites` by default, which takes a forward pass per neuron and question.
        checkpoint, resume: as in `score_neurons`; torchrun shares the questions among processes.

    Raises:
        ScoreError: an empty task, a site that the model lacks, NaN. NeuronError: an empty set, a neuron
            twice.
    """
    info = describe(model)
    chosen = all_neurons(info, sites) if neurons is None else neurons
    if not len(chosen) or len(chosen.keys()) < len(chosen):
        raise NeuronError("exact effects take a set in which each neuron occurs once")
    check_fits(model, chosen)
    sites_of(info, {site for site, _ in chosen.indices})
    asked, column = asked_of(model, task), chosen.columns
    shortest = min(asked.prompts, key=lambda p: len(p.tokens))
    sites_of_set = tuple(dict.fromkeys(site for site, _ in chosen.indices))
    early = fans_out(asking_one(model, shortest, "exact_effects"), sites_of_set)
    shape = (len(asked.prompts), len(chosen))
    state: State = {
        "without": torch.zeros(shape, dtype=torch.float64),  # P(answer) with each neuron zeroed
        "p_answer": torch.zeros(len(asked.prompts), dtype=torch.float64),
    }

    def step(batch: Batch, state: State) -> None:
        (at,), (prompt,) = batch.index, batch.prompts
        one, most = asking(model, [prompt], batch.tokens, batch.mask), rows_that_fit(model, prompt)
        for (site, layer), index in chosen.indices.items():
            here = [column[site.value, layer, int(n)] for n in index]
            for start in range(0, len(index), most):
                part = torch.from_numpy(index[start : start + most])
                said = ask_rows(one, layer, len(part), {site: zeroing(part)}, early=early)
                state["without"][at, here[start : start + most]] = said.p_right.double().cpu()
        state["p_answer"][at] = float(one.ask().p_right)
        batch.watch((state["without"][at].sum() + state["p_answer"][at])[None])

    one_by_one = Probe(native=False, padding=True)
    run_pass(
        model,
        asked.whole,
        asked.prompts,
        step,
        state,
        probe=lambda _: one_by_one,
        batch_size=1,
        progress=progress,
        checkpoint=Checkpoint.of(checkpoint, resume=resume),
        work=Work(chosen),
        verb=f"zero {len(chosen):,} neurons on",
    )
    p_answer = state["p_answer"].numpy()
    drops = (p_answer[:, None] - state["without"].numpy()).astype(np.float32)
    about = replace(_provenance(info, asked.task, chosen), kind="exact effects")
    scored = NeuronSet(chosen.table.assign(score=drops.mean(axis=0)), about)
    return ExactEffects(drops, p_answer, scored, asked.task)


def all_neurons(info: ModelInfo, sites: Iterable[Site | str] = SITES) -> NeuronSet:
    """Every neuron of these sites (those that the model has)."""
    return stratified_sample(info, sites, each=None)


def stratified_sample(
    info: ModelInfo, sites: Iterable[Site | str] = SITES, *, each: int | None = 64, seed: int = 0
) -> NeuronSet:
    """Random neurons, as many from every site and layer: those of a larger model that are zeroed one at a
    time.

    Args:
        info: what `describe(model)` returns.
        each: neurons per site and layer (all where there are fewer); None for all.

    Raises:
        NeuronError: none of the sites, or fewer than one neuron each.
    """
    wanted = [site for site in Site if site in {Site.parse(s) for s in sites} and site in info.widths]
    if not wanted or (each is not None and each < 1):
        raise NeuronError(
            "a sample takes at least one neuron of sites that the model has:"
            f" {', '.join(map(str, info.widths))}"
        )
    rng = np.random.default_rng(seed)
    parts = []
    for site in wanted:
        for layer in info.layers_with(site):
            width = info.width(site, layer)
            index = (
                np.arange(width)
                if each is None
                else np.sort(rng.choice(width, min(each, width), replace=False))
            )
            parts.append(pd.DataFrame({"site": site.value, "layer": layer, "neuron": index}))
    pool = {site.value: info.widths[site] for site in wanted}
    return NeuronSet(
        pd.concat(parts),
        Provenance(
            "sample", info.name, info.revision, thresholds={"seed": seed}, pool=pool, layers=info.layers
        ),
    )


def _provenance(info: ModelInfo, task: Task, neurons: NeuronSet) -> Provenance:
    known = neurons.provenance
    return replace(
        known,
        model=info.name,
        revision=info.revision,
        tasks={task.name: task.fingerprint},
        layers=info.layers,
        version=__version__,
        pool=known.pool or {site.value: info.widths[site] for site, _ in neurons.indices},
    )
