"""Models as hooked transformers: loading them, and what the package asks of one.

`load_model` returns a `TransformerBridge` (or, with TransformerLens 3.9 and ``kind="hooked"``, a
`HookedTransformer`); every function of the package also takes one that the user built.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.neurons import SITES, Site
from ..defaults import TOY
from ..errors import ModelError, ScoreError
from ..hub import cache_where_offline
from ..io import first_line
from . import gguf
from .loading import (
    ADAPTER,
    adapter_base,
    adapter_folder,
    check_name,
    check_path,
    has_commit,
    hash_of_files,
    is_adapter,
    load_plain,
    load_tokenizer,
    looks_like_path,
    merged,
    revision_of,
)
from .sites import Projections, by_layer, in_words, projections
from .workarounds import is_bridge, no_installs, settled_tokenizer

log = logging.getLogger(__name__)

Kind = Literal["bridge", "hooked"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
FLOAT16 = "float16 is refused: gradients of P(answer) underflow in it; use bfloat16 or float32"


@runtime_checkable
class HookedModel(Protocol):
    """What the package needs of a model: a `TransformerBridge` or a `HookedTransformer`, loaded here or by
    the user."""

    cfg: Any
    """TransformerLens' configuration; `n_layers` is read."""
    training: bool

    @property
    def hook_dict(self) -> Mapping[str, Any]:
        """Name -> hook point."""
        ...

    def hooks(self, fwd_hooks: Any = ..., bwd_hooks: Any = ...) -> AbstractContextManager[Any]:
        """Puts hooks on the model while the context lasts."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """All weights."""
        ...

    def train(self, mode: bool = ...) -> Any:
        """Training or evaluation mode."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Logits of tokens."""
        ...


@dataclass(frozen=True)
class ModelInfo:
    """What a result says about the model it came from."""

    name: str
    revision: str | None
    """Commit on the Hub, hash of the folder's content or of the GGUF file, or None for a model that the user
    built."""
    dtype: str
    device: str
    layers: int
    widths: dict[Site, int]
    """Neurons per layer, for every site that the model has; of layers that differ, the largest number."""
    by_layer: Mapping[Site, tuple[int, ...]] = field(default_factory=dict)
    """Neurons in each layer, 0 where a layer lacks the site; of every site."""

    def width(self, site: Site, layer: int) -> int:
        """Neurons of a site in a layer; 0 where there are none."""
        if site not in self.widths or not 0 <= layer < self.layers:
            return 0
        return self.by_layer[site][layer] if site in self.by_layer else self.widths[site]

    def layers_with(self, site: Site) -> list[int]:
        """The layers that have the site."""
        return [layer for layer in range(self.layers) if self.width(site, layer)]

    def count(self, site: Site) -> int:
        """Neurons of a site in all layers."""
        return sum(self.width(site, layer) for layer in range(self.layers))

    def table(self, site: Site, layers: Mapping[int, Tensor]) -> Float[Tensor, "*some layer neuron"]:
        """A site's vectors by layer, each [..., neuron], in one table; 0 where a layer has no such neuron."""
        first = next(iter(layers.values()))
        out = first.new_zeros(*first.shape[:-1], self.layers, self.widths[site])
        for layer, values in layers.items():
            out[..., layer, : values.shape[-1]] = values
        return out

    def _in_words(self, site: Site) -> str:
        by_width: dict[int, list[int]] = {}
        for layer in self.layers_with(site):
            by_width.setdefault(self.width(site, layer), []).append(layer)
        said = [
            f"{width:,}" + ("" if len(layers) == self.layers else f" in {in_words(layers)}")
            for width, layers in by_width.items()
        ]
        return f"{site} {' and '.join(said)}"

    def __str__(self) -> str:
        sites = ", ".join(map(self._in_words, self.widths))
        return (
            f"{self.name} ({self.layers} layers; neurons per layer: {sites}; {self.dtype} on {self.device})"
        )


def load_model(
    name: str | Path = TOY,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    device_map: Any = None,
    trust_remote_code: bool = False,
    hf_model: Any = None,
    tokenizer: Any = None,
    adapter: str | Path | None = None,
    kind: Kind = "bridge",
) -> Any:
    """Loads a model with its tokenizer, parameters frozen, in evaluation mode.

    Args:
        name: "toy" (the embedded model), a Hub id, a folder with a Hugging Face checkpoint (base or
            fine-tuned), or a GGUF file, here (``model.gguf``) or on the Hub (``org/name:model.gguf``), whose
            weights are dequantised. A folder or Hub id with a LoRA adapter alone leads to the base that it
            names, and the adapter is merged into it.
        device: "auto" takes cuda, then mps, then cpu.
        dtype: "auto" takes bfloat16 on a GPU that supports it, else float32. float16 is refused: gradients of
            P underflow.
        revision: branch, tag or commit on the Hub.
        device_map: as in transformers ("auto", or a dictionary), for a model larger than one GPU; instead of
            `device`.
        trust_remote_code: run code that comes with the checkpoint.
        hf_model: a Hugging Face model that is already loaded (quantized, say); it keeps its device, dtype and
            weights, and is switched to eager attention by TransformerLens. `tokenizer` must come with it
            unless `name` has one. The adapters of a `PeftModel` are merged into it.
        tokenizer: used instead of the checkpoint's.
        adapter: folder or Hub id of a LoRA adapter of this model, merged into its weights in memory.
        kind: "bridge", or "hooked" for a `HookedTransformer` of TransformerLens 3.9 (weights unprocessed).

    Returns:
        A hooked transformer. `describe(model)` tells its name, revision, layers and sites.

    Raises:
        ModelError: unknown or gated name, no such folder, weights missing from the checkpoint, an
            architecture without hooks; a folder with both a model and an adapter; a file that is cut off or
            that Git LFS has not fetched; a GGUF file of an architecture that transformers does not read.
    """
    if kind not in ("bridge", "hooked"):
        raise ModelError(f'unknown kind {kind!r}: use "bridge" or "hooked"')
    if device_map is not None and str(device) != "auto":
        raise ModelError("device and device_map exclude each other: give one of them")
    where = pick_device(device)
    number = pick_dtype(dtype, where)
    label, source = str(name), _source(str(name))
    if hf_model is None and has_commit(source):
        check_name(source, revision=revision)
    of_adapter: str | None = None
    if adapter is None and hf_model is None and is_adapter(source, revision):
        adapter, of_adapter, revision = source, revision, None  # a revision is of what was named
        source = label = adapter_base(adapter_folder(source, of_adapter))
    revised: str | None = None
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with _quiet(label == TOY), gguf.read_once() if gguf.is_gguf(source) else nullcontext():
        if hf_model is not None:
            _check_brought(hf_model, device, dtype, device_map)
            if label == TOY:
                label = source = _name_of(hf_model)
                if tokenizer is None:
                    raise ModelError("load_model(hf_model=...) needs a tokenizer=... as well")
            hf_model, label = _unwrapped(hf_model, label)
        elif Path(source).is_dir() or looks_like_path(source):
            check_path(Path(source))
        if tokenizer is None:
            tokenizer = load_tokenizer(source, **options)
        if hf_model is None:
            hf_model = load_plain(source, number, device_map=device_map, **options)
            hf_model = hf_model if device_map is not None else hf_model.to(where)
            revised = revision_of(source, hf_model, revision=revision)
        if adapter is not None:
            hf_model, own = _adapted(hf_model, adapter, of_adapter)
            label = f"{label} + {Path(adapter).expanduser()}"
            revised = own if revised is None else f"{revised}+{own}"
        model = _transformer(source, hf_model, tokenizer, kind, trust_remote_code)
    object.__setattr__(model, "_culnig_source", (label, revised))
    return model


def _adapted(hf_model: Any, adapter: str | Path, revision: str | None) -> tuple[Any, str]:
    """(the model with an adapter merged into it, hash of the adapter's files)."""
    folder = adapter_folder(adapter, revision)
    return merged(hf_model, folder), hash_of_files([folder / ADAPTER, *folder.glob("*.safetensors")])


def _transformer(source: str, hf_model: Any, tokenizer: Any, kind: Kind, trust_remote_code: bool) -> Any:
    """TransformerLens' model of a loaded one, frozen, with its sites looked at."""
    hf_model.requires_grad_(False).eval()
    made = projections(hf_model)
    build = _bridge if kind == "bridge" else _hooked
    stand_in, settings = settled_tokenizer(tokenizer)
    with no_installs(), cache_where_offline(wanted=not Path(source).is_dir()):
        model = build(source, hf_model, stand_in, trust_remote_code)
    stand_in.init_kwargs = settings
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    _sites(model, made)
    return model


def _source(label: str) -> str:
    """Where a name leads: the embedded model's folder, a path written out, or a Hub id."""
    if label == TOY:
        return str(resources.files("culnig_tl") / "toy" / "model")
    return str(Path(label).expanduser()) if looks_like_path(label) else label


def _name_of(hf_model: Any) -> str:
    return str(getattr(hf_model.config, "_name_or_path", "") or type(hf_model).__name__)


@contextmanager
def _quiet(wanted: bool) -> Iterator[None]:
    """Without transformers' progress bars, where `wanted`."""
    from transformers.utils import logging as hf_logging

    shown = hf_logging.is_progress_bar_enabled()
    if wanted:
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


def describe(model: Any) -> ModelInfo:
    """What the package knows of a model: also of one that the user built with TransformerLens."""
    _require_hooked(model)
    found = _sites(model)
    name, revision = getattr(
        model, "_culnig_source", (getattr(model.cfg, "model_name", None) or type(model).__name__, None)
    )
    return ModelInfo(
        name=str(name),
        revision=revision,
        dtype=str(dtype_of(model)).removeprefix("torch."),
        device=str(device_of(model)),
        layers=int(model.cfg.n_layers),
        widths={site: max(own) for site, own in found.items()},
        by_layer=found,
    )


def sites_of(info: ModelInfo, sites: Iterable[Site | str]) -> tuple[Site, ...]:
    """These sites in their order; of the paper's four those that the model has.

    Raises `ScoreError` for one that the model lacks, for none, and for a float16 model.
    """
    if info.dtype == "float16":
        raise ScoreError(FLOAT16)
    wanted = {Site.parse(site) for site in sites}
    have = ", ".join(map(str, info.widths))
    if wanted == set(SITES) and (left := wanted & set(info.widths)) and left != wanted:
        _say_sites_left(have)
        wanted = left
    if missing := [site for site in Site if site in wanted and site not in info.widths]:
        raise ScoreError(f"this model has no site {missing[0]}: it has {have}")
    if not wanted:
        raise ScoreError(f"no site is asked for: the model has {have}")
    return tuple(site for site in Site if site in wanted)


@lru_cache(maxsize=16)
def _say_sites_left(have: str) -> None:
    """Once a process."""
    log.warning("of the sites %s this model has %s: the others are left out", ", ".join(SITES), have)


def device_of(model: HookedModel) -> torch.device:
    """Where the model reads its tokens."""
    return next(iter(model.parameters())).device


def dtype_of(model: HookedModel) -> torch.dtype:
    """Of the weights."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def tokenizer_of(model: HookedModel) -> Any:
    """The model's tokenizer. Raises `ModelError` where it has none."""
    _require_hooked(model)
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ModelError("the model has no tokenizer: load it with load_model(..., tokenizer=...)")
    return tokenizer


def hook_name(model: HookedModel, site: Site, layer: int) -> str:
    """The name under which a hook on this site is called once.

    After `enable_compatibility_mode()` the bridge calls a hook once for each of its names: the name of the
    hook point itself is the one without an alias.
    """
    name = site.hook_name(layer)
    return model.hook_dict[name].name or name


def last_logits(
    model: HookedModel, tokens: Int[Tensor, "#batch pos"], mask: Int[Tensor, "#batch pos"]
) -> Float[Tensor, "batch vocab"]:
    """Logits at the last position of left-padded tokens, in float32 or wider; no others are computed."""
    return tail_logits(model, tokens, mask, 1)[:, -1]


def tail_logits(
    model: HookedModel, tokens: Int[Tensor, "#batch pos"], mask: Int[Tensor, "#batch pos"], count: int
) -> Float[Tensor, "batch tail vocab"]:
    """Logits at the last `count` positions of left-padded tokens, in float32 or wider; no others are
    computed."""
    if is_bridge(model):
        keep = _kept(model, count)
        logits = model(tokens, attention_mask=mask, logits_to_keep=keep, use_cache=False)[:, -count:]
    else:
        logits = unembedded(model, residual_of(model, tokens, mask)[:, -count:])
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _kept(model: HookedModel, count: int) -> int | Tensor:
    """`count` positions at the end, as transformers is told of them.

    Where later layers share the keys and values of earlier ones (Gemma 4), it runs them at these positions
    alone if it is given a number, and hooks would see no others; given the positions themselves it does not.
    """
    whole: Any = model
    config = whole.original_model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    if not getattr(config, "num_kv_shared_layers", 0):
        return count
    return torch.arange(-count, 0, device=device_of(model))


def residual_of(
    model: HookedModel, tokens: Int[Tensor, "#batch pos"], mask: Int[Tensor, "#batch pos"]
) -> Float[Tensor, "batch pos model"]:
    """A HookedTransformer's residual stream after the last layer."""
    return model(tokens, attention_mask=mask, padding_side="left", stop_at_layer=int(model.cfg.n_layers))


def unembedded(model: HookedModel, residual: Float[Tensor, "batch pos model"]) -> Tensor:
    """A HookedTransformer's logits at these positions."""
    whole: Any = model  # it has more than what the two classes share
    logits = whole.unembed(whole.ln_final(residual))
    if (cap := getattr(model.cfg, "output_logits_soft_cap", 0.0) or 0.0) > 0:
        logits = cap * torch.tanh(logits / cap)
    return logits


@contextmanager
def frozen(model: HookedModel) -> Iterator[None]:
    """Evaluation mode and parameters without gradients; both as they were afterwards."""
    training = model.training
    thawed = [p for p in model.parameters() if p.requires_grad]
    model.train(False)
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for parameter in thawed:
            parameter.requires_grad_(True)


# ----------------------------------------------------------------------------------------------- how it loads


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name; "auto" takes cuda, then mps, then cpu. Raises `ModelError` for one
    that is unknown or not there."""
    if str(device) != "auto":
        try:
            wanted = torch.device(device)
            torch.empty(0, device=wanted)
        except (RuntimeError, AssertionError, NotImplementedError):  # PyTorch's words differ by device
            raise ModelError(
                f"there is no device {device!r} here: use auto, cpu, cuda, cuda:0 or mps"
            ) from None
        return wanted
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" takes bfloat16 where the GPU has it. Raises `ModelError` for an unknown
    one."""
    name = str(dtype).removeprefix("torch.")
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if name == "float16":
        raise ModelError(FLOAT16)
    if name not in DTYPES:
        raise ModelError(f"unknown dtype {name!r}: use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _unwrapped(hf_model: Any, label: str) -> tuple[Any, str]:
    """(the model with the adapters of a `PeftModel` merged into it, a name that says so)."""
    if hasattr(hf_model, "merge_and_unload"):
        names = ", ".join(map(str, getattr(hf_model, "active_adapters", None) or ["adapter"]))
        return hf_model.merge_and_unload(), f"{label} + {names}"
    if getattr(hf_model, "_hf_peft_config_loaded", False):
        raise ModelError(
            "hf_model has adapters that are not merged: load them with peft.PeftModel.from_pretrained(), or"
            " give load_model(base, adapter=...)"
        )
    return hf_model, label


def _check_brought(hf_model: Any, device: Any, dtype: Any, device_map: Any) -> None:
    """A model that the user brings is taken as it is; its configuration is told its class where it does not
    know it."""
    if str(device) != "auto" or str(dtype) != "auto" or device_map is not None:
        raise ModelError(
            "hf_model brings its own device and dtype: set them where you load it, not in load_model()"
        )
    if not (hasattr(hf_model, "config") and hasattr(hf_model, "get_input_embeddings")):
        raise ModelError(f"hf_model is a {type(hf_model).__name__}: give a Hugging Face language model")
    if any(p.dtype == torch.float16 for p in hf_model.parameters()):
        raise ModelError(FLOAT16)
    if not getattr(
        hf_model.config, "architectures", None
    ):  # made in memory: TransformerLens reads the class there
        hf_model.config.architectures = [type(hf_model).__name__]


def _bridge(source: str, hf_model: Any, tokenizer: Any, trust_remote_code: bool) -> Any:
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError as error:
        raise ModelError(f"TransformerLens 3.9 or later is needed: {first_line(error)}") from error
    parameter = next(p for p in hf_model.parameters() if p.is_floating_point())
    where = {} if getattr(hf_model, "hf_device_map", None) else {"device": str(parameter.device)}
    try:
        return TransformerBridge.boot_transformers(
            source,
            hf_model=hf_model,
            tokenizer=tokenizer,
            dtype=parameter.dtype,
            trust_remote_code=trust_remote_code,
            **where,
        )
    except (ValueError, KeyError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise ModelError(
            f"TransformerLens cannot hook {source!r} ({type(hf_model).__name__}): {first_line(error)}"
        ) from error


def _hooked(source: str, hf_model: Any, tokenizer: Any, trust_remote_code: bool) -> Any:
    """A `HookedTransformer` with the checkpoint's weights, unprocessed; compared with the Hugging Face model
    before it is returned."""
    try:
        # By name: version 4, which type checkers may look at, has neither.
        HookedTransformer: Any = importlib.import_module(
            "transformer_lens.HookedTransformer"
        ).HookedTransformer
        loading_from_pretrained: Any = importlib.import_module("transformer_lens.loading_from_pretrained")
    except ImportError as error:
        raise ModelError(
            'kind="hooked" needs "transformer-lens>=3.9,<4": version 4 has the bridge alone'
        ) from error
    first = next(hf_model.parameters())
    common: dict[str, Any] = {"device": str(first.device), "dtype": first.dtype}
    try:
        codes = loading_from_pretrained.NEED_REMOTE_CODE_MODELS  # whose code TransformerLens runs unasked
        if source in loading_from_pretrained.OFFICIAL_MODEL_NAMES and not source.startswith(codes):
            model = HookedTransformer.from_pretrained_no_processing(
                source,
                hf_model=hf_model,
                tokenizer=tokenizer,
                trust_remote_code=trust_remote_code,
                **common,
            )
        else:
            # A folder: its config alone decides. It is copied, because TransformerLens reads architectures
            # out of paths.
            with tempfile.TemporaryDirectory() as folder:
                hf_model.config.save_pretrained(folder)
                cfg = loading_from_pretrained.get_pretrained_model_config(
                    folder, trust_remote_code=trust_remote_code, **common
                )
                weights = loading_from_pretrained.get_pretrained_state_dict(
                    folder, cfg, hf_model, dtype=first.dtype
                )
            model = HookedTransformer(cfg, tokenizer)
            model.load_and_process_state_dict(
                weights,
                fold_ln=False,
                center_writing_weights=False,
                center_unembed=False,
                fold_value_biases=False,
            )
    except (
        ValueError,
        KeyError,
        AttributeError,
        NotImplementedError,
        RuntimeError,
        AssertionError,
        OSError,
        TypeError,
    ) as error:
        raise ModelError(
            f'HookedTransformer does not know {source!r}: {first_line(error)}; use kind="bridge"'
        ) from error
    tokens = torch.arange(24, device=first.device)[None] % int(model.cfg.d_vocab)
    with torch.no_grad():
        expected, seen = (
            hf_model(tokens).logits[:, -1].float(),
            last_logits(model.eval(), tokens, torch.ones_like(tokens)).float(),
        )
    difference = float((expected - seen).abs().amax() / expected.abs().amax())
    if not difference < (0.1 if first.dtype == torch.bfloat16 else 1e-3):
        found = f"logits differ by {difference:.1e}"
        raise ModelError(
            f'HookedTransformer computes something else than {source!r} ({found}): use kind="bridge"'
        )
    return model


def _require_hooked(model: Any) -> None:
    if not (hasattr(model, "hooks") and hasattr(model, "cfg") and hasattr(model, "hook_dict")):
        raise ModelError(
            f"{type(model).__name__} is not a hooked transformer: pass what load_model() returns"
        )


@torch.no_grad()
def _sites(model: Any, made: Projections | None = None) -> dict[Site, tuple[int, ...]]:
    """Site -> neurons in each layer, of every site whose hook fires in a short forward pass and carries what
    the Hugging Face model's projections have made; of a model that the user built, whose hook fires."""
    known = getattr(model, "_culnig_sites", None)
    if known is not None:
        return known
    layers = int(model.cfg.n_layers)
    seen: dict[tuple[Site, int], Tensor] = {}

    def look(place: tuple[Site, int]) -> Any:
        def hook(activation: Tensor, hook: Any) -> None:
            seen[place] = activation[0].detach().float().cpu()

        return hook

    hooks = [
        (site.hook_name(layer), look((site, layer)))
        for site in Site
        for layer in range(layers)
        if site.hook_name(layer) in model.hook_dict
    ]
    tokens = torch.zeros((1, 1), dtype=torch.long) if made is None else made.tokens
    with frozen(model), model.hooks(fwd_hooks=hooks):
        tokens = tokens.to(device_of(model))
        last_logits(model, tokens, torch.ones_like(tokens))
    found = by_layer(seen, layers, made if made is not None and made.blocks else None, dtype_of(model))
    if not found:
        raise ModelError(
            f"{type(model).__name__} has none of the hooks that neurons are read from, e.g."
            f" {Site.MLP_GATE.hook_name(layers - 1)}, or they carry something else"
        )
    object.__setattr__(model, "_culnig_sites", found)
    return found
