"""Modules: a layer's whole MLP or attention, ranked by its culture-general neurons, and chosen.

    ranking = rank_modules(general, "google/gemma-3-12b-it")
    top     = choose_modules(ranking, "top", share=0.10)        # those with the most culture-general neurons
    matched = choose_modules(ranking, "matched", share=0.10)    # as top in kind and depth, with few of them
    export_freeze_list(top, "google/gemma-3-12b-it").save("spare.json")

CULNIG (arXiv 2510.08284) fine-tunes the top or the bottom modules, about 10% of the parameters. These two
groups differ in depth and kind as well; top and "matched" do not, so "matched" is the fairer one to compare
with.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from .. import io
from ..data.neurons import NeuronSet, Pool, Site
from ..engine.loading import pretrained, without_weights
from ..errors import FineTuningError, NeuronError
from .config import CHOICES, SHARE, Choice
from .weights import WeightPlace, checkpoint_folder, place_of

_NAME = re.compile(r"(mlp|attn)\.(\d+)")


@dataclass(frozen=True)
class Module:
    """One layer's MLP or attention module, with all its parameters."""

    layer: int
    kind: Pool
    parameters: int
    neurons: int = 0
    """Culture-general neurons that it holds."""

    @property
    def name(self) -> str:
        """E.g. "mlp.13"."""
        return f"{self.kind}.{self.layer}"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class _Modules:
    """Modules of one model, in a meaningful order."""

    modules: tuple[Module, ...]
    total: int
    """Parameters of the whole language model, embeddings included, tied ones once."""
    layers: int

    def __len__(self) -> int:
        return len(self.modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules)

    @property
    def parameters(self) -> int:
        """Of all these modules together."""
        return sum(module.parameters for module in self.modules)

    @property
    def share(self) -> float:
        """Of the model's parameters."""
        return self.parameters / self.total

    @property
    def neurons(self) -> int:
        """Culture-general neurons in these modules."""
        return sum(module.neurons for module in self.modules)

    @property
    def depth(self) -> float:
        """Mean layer, weighted by parameters."""
        return sum(module.layer * module.parameters for module in self.modules) / self.parameters

    def table(self) -> pd.DataFrame:
        """One row per module: module, layer, kind, neurons, parameters, share (of the model's parameters)."""
        rows = [{"module": m.name, **asdict(m), "share": m.parameters / self.total} for m in self.modules]
        return pd.DataFrame(rows, columns=["module", "layer", "kind", "neurons", "parameters", "share"])

    def _repr_html_(self) -> str:
        import html

        return f"<p><b>{html.escape(str(self))}</b></p>{self.table().to_html(index=False)}"


@dataclass(frozen=True, repr=False)
class ModuleRanking(_Modules):
    """All modules of a model, those with the most culture-general neurons first."""

    def __str__(self) -> str:
        first = ", ".join(f"{m} ({m.neurons:,})" for m in self.modules[:5])
        return f"{len(self)} modules of {self.layers} layers by culture-general neurons: {first}, ..."

    __repr__ = __str__


@dataclass(frozen=True, repr=False)
class ModuleGroup(_Modules):
    """The modules to train, or to spare."""

    how: str
    """"top", "bottom", "matched", "random", or "chosen" where they were named one by one."""

    def __str__(self) -> str:
        names = ", ".join(module.name for module in self.modules)
        return (
            f"{self.how}: {names} ({self.parameters:,} parameters, {100 * self.share:.1f}%; "
            f"{self.neurons:,} culture-general neurons, mean layer {self.depth:.1f} of {self.layers})"
        )

    __repr__ = __str__


def skeleton(model: Any, *, whole: bool = False) -> Any:
    """The Hugging Face model without its weights: names, shapes and kinds of modules; takes no memory.

    Args:
        model: a name or folder, a model that `load_model` returned, or a Hugging Face model, which is
            returned as it is.
        whole: include all of a multimodal checkpoint, as others load it, not the language model alone.

    Raises `FineTuningError` for a model that does not carry its configuration.
    """
    import torch
    import transformers

    if isinstance(model, torch.nn.Module) and not hasattr(model, "hook_dict"):
        return model
    if isinstance(model, (str, Path)):
        config = pretrained(transformers.AutoConfig, checkpoint_folder(model))
    else:
        config = getattr(getattr(model, "original_model", None), "config", None)
    if config is None:
        raise FineTuningError(
            f"a {type(model).__name__} does not say which checkpoint it is: give its name or folder"
        )
    architecture = getattr(transformers, str((config.architectures or ["?"])[0]), None)
    if whole and architecture is not None:
        with torch.device("meta"):
            return architecture(config)
    return without_weights(config.text_config if config.model_type == "gemma3" else config)


def rank_modules(neurons: NeuronSet, model: Any) -> ModuleRanking:
    """A model's modules, the ones that hold the most culture-general neurons first.

    Neurons of `mlp.gate`, `mlp.up` and `mlp.post` count for the MLP, those of `attn.q`, `attn.k` and `attn.v`
    for attention. Of equals the shallower comes first, and the MLP before attention.

    Args:
        neurons: the culture-general set.
        model: a name or folder, a Hugging Face model, or what `load_model` returned.

    Raises:
        NeuronError: an empty set, or neurons in layers that the model does not have.
        FineTuningError: a model whose modules are not known.
    """
    ranking = list_modules(model)
    counts: dict[tuple[int, Pool], int] = defaultdict(int)
    for site, layer, _ in neurons.keys():
        counts[int(layer), Site(site).pool] += 1
    if not counts:
        raise NeuronError("the set of neurons is empty: modules cannot be ranked by it")
    known = {(module.layer, module.kind) for module in ranking}
    if strange := sorted(place for place in counts if place not in known):
        layer, kind = strange[0]
        raise NeuronError(
            f"the set has neurons in {kind} of layer {layer}, the model has {ranking.layers} layers: "
            "the set is of another model"
        )
    modules = [replace(module, neurons=counts[module.layer, module.kind]) for module in ranking]
    modules.sort(key=lambda m: (-m.neurons, m.layer, m.kind != "mlp"))
    return replace(ranking, modules=tuple(modules))


def list_modules(model: Any) -> ModuleRanking:
    """A model's modules in order, without counts. Raises `FineTuningError` where none is known."""
    plain = skeleton(model)
    sizes: dict[tuple[int, Pool], int] = defaultdict(int)
    total = 0
    for name, parameter in plain.named_parameters():
        total += parameter.numel()
        place = place_of(name)
        if place is not None:
            sizes[place[:2]] += parameter.numel()
    if not sizes:
        raise FineTuningError(f"{type(plain).__name__} has no MLP or attention modules under any known name")
    modules = [
        Module(layer, kind, size)
        for (layer, kind), size in sorted(sizes.items(), key=lambda item: (item[0][0], item[0][1] != "mlp"))
    ]
    return ModuleRanking(tuple(modules), total, 1 + max(layer for layer, _ in sizes))


def choose_modules(
    ranking: ModuleRanking, how: Choice | str | Iterable[str], *, share: float = SHARE, seed: int = 0
) -> ModuleGroup:
    """Modules that together hold a share of the parameters.

    - top: those with the most culture-general neurons, until the share is reached.
    - matched: for every module of top another one of its kind, so the same share. They are chosen together,
      with the least sum of distance in depth (as a share of the layers) and culture-general neurons (as a
      share of the mean of top's modules).
    - bottom: those with the fewest, the deepest first; as many parameters as top has.
    - random: in an order drawn from all modules by `seed`; as many parameters as top has.

    bottom and random skip a module that would overshoot by the smallest module's parameters or more.

    Args:
        how: one of these, or the names of modules, e.g. ``["mlp.13", "attn.2"]``.
        share: of the model's parameters.

    Raises:
        FineTuningError: a share that cannot be reached, an unknown module.
    """
    if not isinstance(how, str):
        return _named(ranking, list(how))
    if how not in CHOICES:
        raise FineTuningError(
            f"unknown choice of modules {how!r}: use {', '.join(CHOICES)}, or names like mlp.13"
        )
    if not 0 < share <= 1:
        raise FineTuningError(f"a share lies between 0 and 1 (10% is 0.1), not {share}")
    top = _until(ranking.modules, share * ranking.total)
    if top is None:
        raise FineTuningError(
            f"a share of {share:.1%} cannot be reached: all {len(ranking)} modules together hold "
            f"{ranking.share:.1%} of the parameters"
        )
    if how == "top":
        chosen = top
    elif how == "matched":
        chosen = _matched(ranking, top)
    else:
        order = list(reversed(ranking.modules))
        if how == "random":
            order = sorted(order, key=lambda m: (m.layer, m.kind))
            random.Random(f"random modules {seed}").shuffle(order)
        chosen = _as_many(order, sum(module.parameters for module in top))
    return ModuleGroup(tuple(chosen), ranking.total, ranking.layers, how)


def _named(ranking: ModuleRanking, names: list[str]) -> ModuleGroup:
    known = {module.name: module for module in ranking}
    for name in names:
        if name not in known:
            form = "" if _NAME.fullmatch(name) else "; write names like mlp.0 or attn.2"
            raise FineTuningError(
                f"no module {name!r}: this model has mlp and attn of layers 0 to {ranking.layers - 1}{form}"
            )
    if not names or len(set(names)) < len(names):
        raise FineTuningError("name at least one module, and none twice")
    return ModuleGroup(tuple(known[name] for name in names), ranking.total, ranking.layers, "chosen")


def _until(modules: Iterable[Module], wanted: float) -> list[Module] | None:
    """The shortest start of the list that holds that many parameters; None where all together do not."""
    chosen, held = [], 0
    for module in modules:
        chosen.append(module)
        held += module.parameters
        if held >= wanted:
            return chosen
    return None


def _as_many(order: list[Module], wanted: int) -> list[Module]:
    """Modules in this order with that many parameters, as nearly as whole modules can."""
    smallest = min(module.parameters for module in order)
    chosen, held = [], 0
    for module in order:
        if held >= wanted:
            break
        if held + module.parameters < wanted + smallest:
            chosen.append(module)
            held += module.parameters
    return chosen


def _matched(ranking: ModuleRanking, top: list[Module]) -> list[Module]:
    """For each of top's modules another of its kind, near in depth, with few culture-general neurons."""
    from scipy.optimize import linear_sum_assignment

    taken = {module.name for module in top}
    usual = sum(module.neurons for module in top) / len(top)
    chosen: list[Module] = []
    for kind in get_args(Pool):
        mine = [module for module in top if module.kind == kind]
        others = [module for module in ranking if module.kind == kind and module.name not in taken]
        if len(others) < len(mine):
            raise FineTuningError(
                f"the share is too large for matched modules: top takes {len(mine)} {kind} modules, "
                f"{len(others)} are left; use a smaller share"
            )
        if mine:
            near = [[abs(m.layer - o.layer) / ranking.layers for o in others] for m in mine]
            cost = np.array(near) + [
                o.neurons / max(usual, 1) for o in others
            ]  # [top's module, other module]
            chosen += [others[place] for place in linear_sum_assignment(cost)[1]]
    return chosen


# ----------------------------------------------------------------------------------------- for other trainers


@dataclass(frozen=True)
class FreezeList:
    """What to leave untrained, by the names of the model as others load it."""

    parameters: tuple[str, ...]
    """Names of the parameters to spare: ``requires_grad_(False)``."""
    exclude_modules: tuple[str, ...]
    """Linear layers to spare: ``LoraConfig(exclude_modules=list(...))``, with ``target_modules="all-linear"``
    or your own names."""
    target_modules: tuple[str, ...]
    """All linear layers of the other MLPs and attention modules: ``LoraConfig(target_modules=list(...))``."""

    def save(self, path: str | Path) -> Path:
        """Writes all three as JSON; to a file ending in .txt the parameters alone, one per line."""
        path = Path(path)
        if path.suffix == ".txt":
            return io.write(path, ("\n".join(self.parameters) + "\n").encode())
        names = {key: list(value) for key, value in asdict(self).items()}
        return io.write(path, (json.dumps(names, indent=1) + "\n").encode())

    def __str__(self) -> str:
        return (
            f"{len(self.parameters)} parameters in {len(self.exclude_modules)} linear layers are spared, "
            f"{len(self.target_modules)} others can be trained"
        )


def export_freeze_list(modules: Iterable[Module], model: Any) -> FreezeList:
    """The names of what is in these modules, for people who train elsewhere and want to spare them.

    Args:
        modules: e.g. ``choose_modules(ranking, "top")``.
        model: the Hugging Face model that is to be trained, or a name or folder: names are then those of the
            class that the checkpoint says it is, vision parts included.

    Raises:
        FineTuningError: a module that the model does not have.
    """
    plain = skeleton(model, whole=True)
    wanted: set[tuple[int, Pool]] = {(module.layer, module.kind) for module in modules}
    parameters = parameters_in(plain, wanted).values()
    spared, others = [], []
    for name, place in linear_layers(plain):
        (spared if place in wanted else others).append(name)
    return FreezeList(tuple(parameters), tuple(spared), tuple(others))


def parameters_in(plain: Any, wanted: Iterable[tuple[int, Pool]]) -> dict[WeightPlace, str]:
    """Place -> name of each parameter in these modules. Raises `FineTuningError` for a missing module."""
    wanted = set(wanted)
    names = {
        place: name
        for name, _ in plain.named_parameters()
        if (place := place_of(name)) and place[:2] in wanted
    }
    for layer, kind in sorted(wanted - {place[:2] for place in names}):
        raise FineTuningError(
            f"{type(plain).__name__} has no {kind} in layer {layer}: the modules are of another model"
        )
    return names


def linear_layers(plain: Any) -> Iterator[tuple[str, tuple[int, Pool]]]:
    """(name, (layer, kind)) of every linear layer inside an MLP or attention module of the language model."""
    import torch
    from transformers.pytorch_utils import Conv1D

    for name, layer in plain.named_modules():
        place = place_of(f"{name}.weight") if isinstance(layer, (torch.nn.Linear, Conv1D)) else None
        if place is not None:
            yield name, place[:2]
