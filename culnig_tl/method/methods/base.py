"""What a method is: a formula for one question and neuron, and what it needs to see.

A method that reads activations or gradients of one pass gives `term`, its value on each question of a batch; `together`
runs the passes, shares them among methods, and sums the terms by country. A method that needs passes of its own gives `run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...data.neurons import Site
from ...engine.models import ModelInfo
from ...engine.prompts import Prompt
from ...tasks.question import Task
from .alignment import Alignment

Totals = dict[Site, Float[Tensor, "country layer neuron"]]
"""A method's sums over the questions of each country."""


@dataclass
class Batch:
    """The questions that are under way."""

    real: Bool[Tensor, "batch pos"]
    """False at padding."""
    even: bool
    """No position is padding."""
    p_answer: Float[Tensor, " batch"]
    """P(y|x); known once the forward pass is done, so to gradient methods alone."""
    control: bool
    """These are control questions: CULNIG clamps their terms at 0."""
    alignment: Alignment | None = None
    """Where the corrupted prompts' positions lie; for methods that ask for corrupted prompts."""


@dataclass
class Seen:
    """What a method sees of one site and layer. Values at padding are undefined: mask them with `batch.real`."""

    batch: Batch
    activation: Float[Tensor, "batch pos neuron"] | None = None
    """For methods of the forward pass."""
    products: Float[Tensor, "batch pos neuron"] | None = None
    """n_i * dP/dn_i, in float32 at least; for gradient methods. Padding may be overwritten, nothing else."""
    gradient: Float[Tensor, "batch pos neuron"] | None = None
    """dP/dn_i; for gradient methods that ask for corrupted prompts."""
    corrupted: Float[Tensor, "batch corrupted neuron"] | None = None
    """The activation on the corrupted prompts; for methods that ask for them."""


class Method:
    """One way to score neurons. A new object is made for every task that is scored."""

    name: ClassVar[str]
    about: ClassVar[str]
    """One line for lists."""
    gradient: ClassVar[bool] = False
    """Reads the backward pass; else the forward pass alone."""
    corrupted: ClassVar[bool] = False
    """Compares with the control prompt, so the task must have one."""
    contrast: ClassVar[bool] = False
    """Neurons are ranked by their score a question less that of the control, as in CULNIG; other methods by the score itself."""
    aggregation: ClassVar[str]
    """What the scores' metadata call it: scores of different methods cannot be subtracted from each other."""
    gate_only: ClassVar[bool] = False
    """Says nothing of attention's neurons."""
    costly: ClassVar[bool] = False
    """Takes tens of passes or more a question."""
    builds_on: ClassVar[tuple[str, ...]] = ()
    """Methods whose scores it starts from."""

    def reads(self, site: Site) -> Site | None:
        """The site whose hook is read for neurons of `site`; None where the method says nothing of them."""
        return None if self.gate_only and site != Site.MLP_GATE else site

    def term(self, seen: Seen) -> Float[Tensor, "batch neuron"]:
        """The method's value of each question and neuron of one site and layer, to be summed over questions."""
        raise NotImplementedError(self.name)

    def finish(self, totals: Totals, job: Job) -> Totals:
        """The scores from the sums over questions: those sums, unless the method says otherwise."""
        return totals


class OwnMethod(Method):
    """A method with passes of its own."""

    def run(self, job: Job, finished: Mapping[str, Totals]) -> Totals:
        """All its scores. `finished` holds those of the methods in `builds_on`."""
        raise NotImplementedError(self.name)


@dataclass
class Job:
    """One model and task that methods score."""

    model: Any
    info: ModelInfo
    task: Task
    sites: tuple[Site, ...]
    """Sites of the neurons that are scored."""
    prompts: list[Prompt]
    corrupted: list[Prompt] | None
    """The control prompt of every question, where a method asks for it."""
    countries: tuple[str, ...]
    of_country: Float[Tensor, "country question"]
    """1 where the question is of the country."""
    p_answer: Float[Tensor, " question"]
    """P(y|x), filled in by the first pass."""
    language: Job | None
    """For CAPE: the same model on the task that language neurons are found on."""
    batch_size: int | str | Sequence[int]
    seed: int
    advance: Any

    @property
    def tokens(self) -> Float[Tensor, " country"]:
        """Tokens of all prompts of each country."""
        return self.of_country.double() @ torch.tensor(
            [len(p.tokens) for p in self.prompts], dtype=torch.float64
        )
