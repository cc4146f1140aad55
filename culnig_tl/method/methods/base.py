"""What a method is: a formula for one question and neuron, and what it needs to see.

A method that reads activations or gradients gives `term`, its value on each question of a batch;
`score_neurons` runs the pass, shares it among methods, and sums the terms by country. A method that runs each
prompt in its own way is an `OwnMethod`; one that is made from other methods' scores, or from nothing, is a
`DerivedMethod`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from ...data.neurons import Site
from ...engine.hooks import HookPlace
from ...engine.models import HookedModel, ModelInfo
from ...engine.prompts import Prompt
from ...tasks.question import Task
from .alignment import Alignment

Totals = dict[Site, Float[Tensor, "row layer neuron"]]
"""A method's sums over questions: a row per country (and, after these, per country of each bootstrap
replicate)."""
Values = dict[HookPlace, Float[Tensor, " neuron"]]
"""A method's values on one question."""


@dataclass
class Seen:
    """What a method sees of one site and layer. Values at padding are undefined: mask them with `real`."""

    real: Bool[Tensor, "batch pos"]
    """False at padding."""
    even: bool
    """No position is padding."""
    p_answer: Float[Tensor, " batch"]
    """P(y|x); known once the forward pass is done, so to gradient methods alone."""
    control: bool
    """These are control questions: CULNIG clamps their terms at 0."""
    activation: Float[Tensor, "batch pos neuron"] | None = None
    """For methods of the forward pass."""
    products: Float[Tensor, "batch pos neuron"] | None = None
    """n_i * dP/dn_i, in float32 at least; for gradient methods. Padding may be overwritten, nothing else."""
    gradient: Float[Tensor, "batch pos neuron"] | None = None
    """dP/dn_i; for gradient methods that ask for corrupted prompts."""
    corrupted: Float[Tensor, "batch corrupted neuron"] | None = None
    """The activation on the corrupted prompts; for methods that ask for them."""
    alignment: Alignment | None = None
    """Where the corrupted prompts' positions lie."""


@dataclass
class Job:
    """One model and task that methods score."""

    model: HookedModel
    info: ModelInfo
    whole: Task
    task: Task
    """The questions of `whole` that fit in the model's context."""
    sites: tuple[Site, ...]
    """Sites of the neurons that are scored."""
    prompts: list[Any]
    corrupted: list[Prompt] | None
    """The control prompt of every question, where a method asks for it."""
    countries: tuple[str, ...]
    rows: Float[Tensor, "row question"]
    """1 where the question is of the row's country, times how often a replicate draws it: S = rows @
    terms."""
    seed: int

    @property
    def tokens(self) -> Float[Tensor, " row"]:
        """Tokens of all questions of each row, without their controls."""
        lengths = self.rows.new_tensor([len(p.clean) for p in self.prompts])
        return self.rows.double() @ lengths.double()


class Method:
    """One way to score neurons."""

    name: ClassVar[str]
    about: ClassVar[str]
    """One line for lists."""
    gradient: ClassVar[bool] = False
    """Reads the backward pass; else the forward pass alone."""
    corrupted: ClassVar[bool] = False
    """Compares with the control prompt, so the task must have one."""
    contrast: ClassVar[bool] = False
    """Neurons are ranked by their score per question less that of the control, as in CULNIG; other methods by
    the score itself."""
    aggregation: ClassVar[str]
    """What the scores' metadata call it: scores of different methods cannot be subtracted from each other."""
    gate_only: ClassVar[bool] = False
    """Says nothing of attention's neurons."""
    costly: ClassVar[bool] = False
    """Takes tens of passes or more per question."""
    cloze: ClassVar[bool] = False
    """Scores cloze questions too."""
    weighted: ClassVar[bool] = False
    """Each question's term is multiplied by P(y|x)."""
    builds_on: ClassVar[tuple[str, ...]] = ()
    """Methods whose scores it starts from."""

    def reads(self, site: Site) -> Site | None:
        """The site whose hook is read for neurons of `site`; None where the method says nothing of them."""
        return None if self.gate_only and site != Site.MLP_GATE else site

    def term(self, seen: Seen) -> Float[Tensor, "batch neuron"]:
        """The method's value of each question and neuron of one site and layer, to be summed over
        questions."""
        raise NotImplementedError(self.name)

    def finish(self, totals: Totals, job: Job) -> Totals:
        """The scores from the sums over questions: those sums, unless the method says otherwise."""
        return totals


class OwnMethod(Method):
    """A method that runs each prompt in its own way; several of one `family` share what they run.

    Sites that its scorer leaves out have the scores of the method that it builds on.
    """

    family: ClassVar[str]

    @classmethod
    def prepare(cls, job: Job, methods: Sequence[OwnMethod]) -> PromptScorer:
        """What scores one prompt by several methods of the family."""
        raise NotImplementedError(cls.family)


class PromptScorer:
    """Scores one prompt after another."""

    sites: tuple[Site, ...]
    """Of the neurons that it scores."""

    def score(self, at: int) -> tuple[dict[str, Values], float]:
        """(method -> values, P(y|x)) of the prompt at that position of the job."""
        raise NotImplementedError


class DerivedMethod(Method):
    """A method that is made from other methods' scores, or from nothing."""

    builds_on_language: ClassVar[tuple[str, ...]] = ()
    """Methods whose scores of the language task it starts from."""

    def derive(self, job: Job, scores: Mapping[str, Totals], language: Language | None) -> Totals:
        """Its scores, from those of `builds_on` and, on the language task, of `builds_on_language`."""
        raise NotImplementedError(self.name)


@dataclass(frozen=True)
class Language:
    """What was found on the task that language neurons are found on."""

    countries: tuple[str, ...]
    scores: Mapping[str, Totals]
