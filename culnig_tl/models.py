"""Loading models as hooked transformers. The only file that knows which class of TransformerLens it holds.

`load_model` returns a `TransformerBridge`; every function of the package also takes a bridge or a `HookedTransformer`
that the user built.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .errors import ModelError
from .neurons import Site

log = logging.getLogger(__name__)

TOY = "toy"
PAPER_MODELS: tuple[str, ...] = (
    "google/gemma-3-12b-it",
    "google/gemma-3-27b-it",
    "Qwen/Qwen3-14B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "microsoft/phi-4",
    "tiiuae/Falcon3-10B-Instruct",
)
"""The six models of the paper."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass(frozen=True)
class ModelInfo:
    """What a result says about the model it came from."""

    name: str
    revision: str | None
    """Commit on the Hub, hash of the folder's content, or None for a model that the user built."""
    dtype: str
    device: str
    layers: int
    widths: dict[Site, int]
    """Neurons a layer, for every site that the model has."""

    def __str__(self) -> str:
        sites = ", ".join(f"{site} {width:,}" for site, width in self.widths.items())
        return f"{self.name} ({self.layers} layers; neurons a layer: {sites}; {self.dtype} on {self.device})"


def load_model(
    name: str | Path = TOY,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    hf_model: Any = None,
    tokenizer: Any = None,
) -> Any:
    """Loads a model with its tokenizer, parameters frozen, in evaluation mode.

    Args:
        name: "toy" (the embedded model), a Hub id, or a folder with a Hugging Face checkpoint.
        device: "auto" takes cuda, then mps, then cpu.
        dtype: "auto" takes bfloat16 on a GPU that supports it, else float32. float16 is refused: gradients of P underflow.
        revision: branch, tag or commit on the Hub.
        trust_remote_code: run code that comes with the checkpoint.
        hf_model, tokenizer: a Hugging Face model that is already loaded (quantized, say), with its tokenizer.

    Returns:
        A `transformer_lens` bridge. `describe(model)` tells its name, revision, layers and sites.

    Raises:
        ModelError: unknown name, no such folder, weights missing from the checkpoint, an architecture without hooks.
    """
    from transformers.utils import logging as hf_logging

    where = _pick_device(device)
    kind = _pick_dtype(dtype, where)
    source, label = (str(resources.files(__package__) / "toy" / "model"), TOY) if str(name) == TOY else (str(name), str(name))
    if hf_model is None and (Path(source).is_dir() or _looks_like_path(source)):
        _check_folder(Path(source))
    bars = hf_logging.is_progress_bar_enabled()
    if label == TOY:
        hf_logging.disable_progress_bar()
    try:
        if tokenizer is None:
            tokenizer = _load_tokenizer(source, revision, trust_remote_code)
        if hf_model is None:
            hf_model = _load_hf_model(source, kind, revision, trust_remote_code)
        model = _bridge(source, hf_model, tokenizer, where, kind, trust_remote_code)
    finally:
        if bars:
            hf_logging.enable_progress_bar()
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    _remember(model, label, _revision(source, hf_model))
    return model


def describe(model: Any) -> ModelInfo:
    """What the package knows of a model: also of one that the user built with TransformerLens."""
    _require_hooked(model)
    name, revision = getattr(model, "_culnig_source", (getattr(model.cfg, "model_name", None) or type(model).__name__, None))
    parameter = next(iter(model.parameters()))
    return ModelInfo(
        name=str(name),
        revision=revision,
        dtype=str(parameter.dtype).removeprefix("torch."),
        device=str(parameter.device),
        layers=int(model.cfg.n_layers),
        widths=_site_widths(model),
    )


def device_of(model: Any) -> torch.device:
    """Where the model reads its tokens."""
    return next(iter(model.parameters())).device


def tokenizer_of(model: Any) -> Any:
    """The model's tokenizer. Raises `ModelError` where it has none."""
    _require_hooked(model)
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ModelError("the model has no tokenizer: load it with load_model(..., tokenizer=...)")
    return tokenizer


def last_logits(
    model: Any, tokens: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch vocab"]:
    """Logits at the last position of left-padded tokens, in float32 or wider."""
    keep = {"logits_to_keep": 1} if _is_bridge(model) else {}
    logits = model(tokens, attention_mask=mask, **keep)[:, -1]
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """Evaluation mode and parameters without gradients; both as they were afterwards."""
    training = model.training
    thawed = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        model.train(training)
        for parameter in thawed:
            parameter.requires_grad_(True)


# ---------------------------------------------------------------------------------------------------------- how it loads


def _pick_device(device: str | torch.device) -> torch.device:
    if str(device) != "auto":
        try:
            return torch.device(device)
        except RuntimeError:
            raise ModelError(f"unknown device {device!r}: use auto, cpu, cuda, cuda:0 or mps") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _pick_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        dtype = str(dtype).removeprefix("torch.")
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if dtype == "float16":
        raise ModelError("float16 is refused: gradients of P(answer) underflow in it; use bfloat16 or float32")
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}: use auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _looks_like_path(source: str) -> bool:
    return source.startswith((".", "/", "~")) or source.count("/") > 1


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"no such folder: {folder}")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json: a Hugging Face checkpoint is wanted")


def _load_tokenizer(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"no tokenizer for {source!r}: {_first_line(error)}") from error


def _load_hf_model(source: str, dtype: torch.dtype, revision: str | None, trust_remote_code: bool) -> Any:
    """The plain Hugging Face model; of a multimodal Gemma 3 the language model alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **common)
        more: dict[str, Any] = {}
        if config.model_type == "gemma3":  # language model inside a multimodal checkpoint
            config = config.text_config
            config.architectures = ["Gemma3ForCausalLM"]
            more["key_mapping"] = {
                "^language_model.model": "model",
                "^model.language_model": "model",
                "^language_model.lm_head": "lm_head",
            }
        model, loaded = AutoModelForCausalLM.from_pretrained(source, config=config, dtype=dtype, output_loading_info=True, **common, **more)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"cannot load {source!r}: {_first_line(error)}") from error
    vision = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
    unexpected = [key for key in loaded["unexpected_keys"] if not (more and key.startswith(vision))]
    for what, keys in (("missing from", loaded["missing_keys"]), ("not expected in", unexpected), ("of another shape in", loaded["mismatched_keys"])):
        if keys:
            raise ModelError(f"{len(keys)} weights are {what} the checkpoint {source!r}, e.g. {sorted(map(str, keys))[0]}: it does not fit {type(model).__name__}")
    return model


def _bridge(source: str, hf_model: Any, tokenizer: Any, device: torch.device, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    try:
        from transformer_lens.model_bridge import TransformerBridge
        from transformer_lens.model_bridge.sources.transformers import helpers
    except ImportError as error:
        raise ModelError(f"TransformerLens 3.9 or later is needed: {_first_line(error)}") from error
    # TransformerLens installs torchvision with pip when a multimodal processor asks for it: no load may install anything.
    helpers._ensure_torchvision = _never_install
    try:
        return TransformerBridge.boot_transformers(
            source, hf_model=hf_model, tokenizer=tokenizer, device=str(device), dtype=dtype, trust_remote_code=trust_remote_code
        )
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"TransformerLens cannot hook {source!r} ({type(hf_model).__name__}): {_first_line(error)}") from error


def _never_install() -> bool:
    return False


def _revision(source: str, hf_model: Any) -> str | None:
    """The Hub's commit, or a hash of the folder's weights and configuration."""
    folder = Path(source)
    if not folder.is_dir():
        return getattr(hf_model.config, "_commit_hash", None)
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), folder / "config.json"]):
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def _remember(model: Any, name: str, revision: str | None) -> None:
    object.__setattr__(model, "_culnig_source", (name, revision))


def _is_bridge(model: Any) -> bool:
    return type(model).__name__ == "TransformerBridge"


def _require_hooked(model: Any) -> None:
    if not (hasattr(model, "hooks") and hasattr(model, "cfg") and hasattr(model, "hook_dict")):
        raise ModelError(f"{type(model).__name__} is not a hooked transformer: pass what load_model() returns")


@torch.no_grad()
def _site_widths(model: Any) -> dict[Site, int]:
    """Neurons a layer of every site that fires in a forward pass of one token."""
    known = getattr(model, "_culnig_widths", None)
    if known is not None:
        return known
    last = int(model.cfg.n_layers) - 1
    widths: dict[Site, int] = {}

    def look(site: Site):
        def hook(activation: Tensor, hook: Any) -> None:
            widths[site] = activation[0, 0].numel()

        return hook

    present = [site for site in Site if site.hook_name(last) in model.hook_dict]
    with frozen(model), model.hooks(fwd_hooks=[(site.hook_name(last), look(site)) for site in present]):
        one = torch.zeros((1, 1), dtype=torch.long, device=device_of(model))
        last_logits(model, one, torch.ones_like(one))
    widths = {site: widths[site] for site in present if site in widths}
    if not widths:
        raise ModelError(f"{type(model).__name__} has none of the hooks that neurons are read from, e.g. {Site.MLP_GATE.hook_name(last)}")
    object.__setattr__(model, "_culnig_widths", widths)
    return widths


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
