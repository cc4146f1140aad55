"""From a name, a folder or a GGUF file to a plain Hugging Face model with its tokenizer. Knows nothing of
TransformerLens.

What is asked for is loaded completely or not at all: a weight that the checkpoint lacks would otherwise stay
random without a word.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..defaults import PAPER_MODELS, TOY
from ..errors import ModelError
from ..hub import cache_where_offline, check_spelling, no_model
from ..io import first_line
from ..names import nearest
from . import gguf

log = logging.getLogger(__name__)

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
SUFFIXES = tuple(pattern[1:] for pattern in WEIGHTS)
ADAPTER = "adapter_config.json"
POINTER = b"version https://git-lfs.github.com/spec/"
"""What a file begins with that Git LFS has not fetched."""
CONVERT = (
    'python -c "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T;'
    " [K.from_pretrained('{source}').save_pretrained('converted') for K in (M, T)]\""
)
"""Command that writes a checkpoint again, with its weights in safetensors."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Files of which a tokenizer has one."""
GEMMA3_LANGUAGE_MODEL = {
    "^language_model.model": "model",
    "^model.language_model": "model",
    "^language_model.lm_head": "lm_head",
}
"""Names of the language model's weights inside a multimodal Gemma 3 checkpoint -> their names in the language
model alone."""
GEMMA3_REST = (
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)
"""Weights of such a checkpoint that the language model does without."""
CAUSES = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    ImportError,
    TypeError,
    IndexError,
    AttributeError,
    SafetensorError,
)
"""What transformers raises where something cannot be loaded; `NotImplementedError` is a `RuntimeError`."""


def pretrained(kind: Any, source: str | Path, *, trust_remote_code: bool = False, **options: Any) -> Any:
    """What a class of transformers reads from a checkpoint: configuration, tokenizer, processor or model.

    The package reads checkpoints through this function alone, so that no call is left in which transformers
    asks on the terminal whether to run code that came with one.

    Args:
        kind: a class with `from_pretrained`, e.g. `transformers.AutoConfig`.
        trust_remote_code: run that code; only where the user said so.
        options: of that class's `from_pretrained`.

    Raises whatever transformers raises for a checkpoint that it cannot read.
    """
    with cache_where_offline(wanted=not Path(source).is_dir()):
        return kind.from_pretrained(source, trust_remote_code=trust_remote_code, **options)


def without_weights(config: Any) -> Any:
    """The language model of a configuration: names, shapes and kinds of its modules, in no memory.

    No code that comes with a checkpoint is run. Raises whatever transformers raises for a configuration that
    it cannot make a language model of.
    """
    with torch.device("meta"):
        return _untrained(config)


def _untrained(config: Any, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(config, trust_remote_code=False, **options)


def load_tokenizer(source: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The checkpoint's tokenizer, or that in the GGUF file. Raises `ModelError` where it has none."""
    from transformers import AutoTokenizer

    try:
        with _opened(source, revision) as (place, where):
            return pretrained(AutoTokenizer, place, trust_remote_code=trust_remote_code, **where)
    except ModelError:
        raise
    except Exception as error:  # the tokenizers' own is just that
        if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in TOKENIZERS):
            raise ModelError(
                f"{source} holds no tokenizer ({', '.join(TOKENIZERS)}): save it there"
                " (tokenizer.save_pretrained), or give one, load_model(..., tokenizer=...)"
            ) from error
        raise ModelError(explain(error, source, revision, "cannot load the tokenizer of")) from error


def load_plain(
    source: str,
    dtype: torch.dtype,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device_map: Any = None,
) -> Any:
    """The checkpoint as a Hugging Face model; of a multimodal Gemma 3 the language model alone, of a GGUF
    file its weights dequantised.

    Raises:
        ModelError: unknown or gated name, no or foreign weights, an architecture that is no language model.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    common: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    ignored: tuple[str, ...] = ()
    try:
        with _opened(source, revision) as (place, where):
            config = pretrained(AutoConfig, place, **common, **where)
            if config.model_type == "gemma3":
                config = config.text_config
                config.architectures = ["Gemma3ForCausalLM"]
                common["key_mapping"], ignored = GEMMA3_LANGUAGE_MODEL, GEMMA3_REST
            if device_map is not None:
                common["device_map"] = device_map
            both: Any = pretrained(
                AutoModelForCausalLM,
                place,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                use_safetensors=True,
                **common,
                **where,
            )
            model, loaded = both
    except ModelError:
        raise
    except Exception as error:  # a configuration's values are checked by errors of their own kinds
        raise ModelError(explain(error, source, revision, "cannot load")) from error
    if gguf.is_gguf(source):
        _make_ordinary(model, source)
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(
            f"{source!r} holds a whole model and a LoRA adapter, and does not say whether they are merged"
            " already: give a folder with the model alone, and the adapter's, load_model(base, adapter=...)"
        )
    unexpected = [key for key in loaded["unexpected_keys"] if not key.startswith(ignored or ("\0",))]
    problems = {
        "missing from": loaded["missing_keys"],
        "not expected in": unexpected,
        "of another shape in": loaded["mismatched_keys"],
    }
    for what, keys in problems.items():
        if keys:
            example = sorted(str(key[0] if isinstance(key, tuple) else key) for key in keys)[0]
            fit = f"it does not fit {type(model).__name__}; save the whole model with save_pretrained()"
            raise ModelError(
                f"{len(keys)} weights are {what} the checkpoint {source!r}, e.g. {example}: {fit}"
            )
    return model


def with_random_weights(source: str, dtype: torch.dtype, *, revision: str | None = None) -> Any:
    """A Hugging Face model of a checkpoint's shapes: for measuring time and memory, which weights do not
    decide, where reading them takes long.

    No code that comes with the checkpoint is run. Raises `ModelError` as `load_plain` does.
    """
    from transformers import AutoConfig

    try:
        with _opened(source, revision) as (place, where):
            return _untrained(pretrained(AutoConfig, place, **where), dtype=dtype)
    except CAUSES as error:
        raise ModelError(explain(error, source, revision, "cannot load")) from error


@contextmanager
def _opened(source: str, revision: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """What transformers loads from, and the arguments that say where in it.

    A GGUF file is read from an empty folder: what lies beside it, another tokenizer perhaps, is not its own.
    """
    if not gguf.is_gguf(source):
        yield source, {"revision": revision}
        return
    path = gguf.local_file(source, revision=revision).resolve()
    header = gguf.check_file(path)
    try:
        with tempfile.TemporaryDirectory() as empty:
            yield empty, {"gguf_file": str(path)}
    except CAUSES as error:
        told = first_line(error)
        if "not supported" in told or isinstance(error, NotImplementedError):
            told = "transformers does not read it from GGUF; load the checkpoint that the file was made from"
        raise ModelError(
            f"cannot load {source}, of the architecture {header.architecture!r}: {told}"
        ) from error


def _make_ordinary(model: Any, source: str) -> None:
    """The weights are dequantised: what is saved of the model must not say otherwise."""
    if hasattr(model, "hf_quantizer"):
        model.hf_quantizer.remove_quantization_config(model)
    model.config.name_or_path = source
    model.config.architectures = [type(model).__name__]


def adapter_base(folder: Path) -> str:
    """The model that a LoRA adapter's folder names as its base. Raises `ModelError` where it names none."""
    try:
        base = json.loads((folder / ADAPTER).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder / ADAPTER} cannot be read: {first_line(error)}") from error
    if not base:
        raise ModelError(f"{folder} names no base model: load_model(base, adapter={str(folder)!r})")
    if Path(base).is_dir() or not looks_like_path(base):
        return str(base)
    raise ModelError(
        f"the adapter {folder} names as its base {base!r}, which is not here: give it,"
        f" load_model(base, adapter={str(folder)!r})"
    )


def is_adapter(source: str | Path, revision: str | None = None) -> bool:
    """Whether it is a folder, or a Hub id, with a LoRA adapter and no model."""
    folder = Path(source)
    if folder.is_dir() or looks_like_path(str(source)) or gguf.is_gguf(str(source)):
        return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()
    return not _on_hub(str(source), "config.json", revision) and _on_hub(str(source), ADAPTER, revision)


def _on_hub(name: str, file: str, revision: str | None) -> bool:
    """Whether a Hub id has the file, here in the cache or there; whatever else is wrong shows later."""
    from huggingface_hub import hf_hub_download

    try:
        with cache_where_offline():
            hf_hub_download(name, file, revision=revision)
    except Exception:  # no such file, no such name, no network: the client has an error for each
        return False
    return True


def adapter_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder of a LoRA adapter: the one named, or the local copy of a Hub id's. Raises `ModelError` where
    it cannot be fetched."""
    folder = Path(source).expanduser()
    if folder.is_dir() or looks_like_path(str(source)):
        return folder
    from huggingface_hub import snapshot_download

    try:
        with cache_where_offline():
            patterns = [ADAPTER, "adapter_model.safetensors"]
            return Path(snapshot_download(str(source), revision=revision, allow_patterns=patterns))
    except Exception as error:  # the Hub's client lets errors of many kinds through
        raise ModelError(explain(error, str(source), revision, "cannot fetch the adapter")) from error


def merged(hf_model: Any, adapter: Path) -> Any:
    """The model with a LoRA adapter merged into its weights, in memory.

    Raises:
        ModelError: no adapter in the folder, weights that are pickled, an adapter of another architecture, or
            no peft.
    """
    if not (adapter / ADAPTER).is_file():
        raise ModelError(f"{adapter} holds no LoRA adapter: a folder with {ADAPTER} is wanted")
    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(f"{adapter} holds no adapter_model.safetensors: save the adapter in safetensors")
    check_files(adapter)
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelError('adapters need peft: pip install "culnig-tl[finetune]"') from error
    try:
        with cache_where_offline():
            return PeftModel.from_pretrained(hf_model, str(adapter)).merge_and_unload()
    except CAUSES as error:
        raise ModelError(
            f"the adapter {adapter} does not fit {type(hf_model).__name__}: {first_line(error)}"
        ) from error


def hash_of_files(paths: Iterable[Path]) -> str:
    """Hash of files' names and contents, 16 hex digits."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode())
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def check_files(folder: Path) -> None:
    """Raises `ModelError` for a file that Git LFS has not fetched, and for weights that are cut off."""
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.suffix not in (*SUFFIXES, ".json", ".model"):
            continue
        with path.open("rb") as stream:
            if stream.read(len(POINTER)) == POINTER:
                raise ModelError(
                    f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in {folder}"
                )
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt"):
                    pass
            except (SafetensorError, OSError) as error:
                raise ModelError(
                    f"{path} is cut off or broken, download it again: {first_line(error)}"
                ) from error


def check_path(path: Path) -> None:
    """Raises `ModelError` where there is no checkpoint: a folder with one, or a GGUF file."""
    if gguf.is_gguf(path.name):
        gguf.check_file(path)
    else:
        check_folder(path)


def check_folder(folder: Path) -> None:
    """Raises `ModelError` where the folder holds no checkpoint."""
    if not folder.is_dir():
        raise ModelError(f"no such folder: {folder}")
    if is_adapter(folder):
        raise ModelError(
            f"{folder} holds a LoRA adapter, not a model: merge it first (merge_and_unload) and save the"
            " whole model"
        )
    if (folder / ADAPTER).is_file():
        raise ModelError(
            f"{folder} holds a whole model and {ADAPTER}: move that away if the model is merged already, or"
            " keep the adapter in a folder of its own and give both, load_model(base, adapter=...)"
        )
    if not (folder / "config.json").is_file():
        if files := sorted(folder.glob("*.gguf")):
            raise ModelError(f"{folder} is a folder of GGUF files: give one of them, e.g. {files[0]}")
        raise ModelError(
            f"{folder} holds no config.json: a Hugging Face checkpoint, as save_pretrained() writes it, is"
            " wanted"
        )
    check_files(folder)


def looks_like_path(source: str) -> bool:
    """Whether it can only be a folder or a file: the Hub's names have one slash at most."""
    if gguf.on_hub(source):
        return False
    within = source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source
    return within or gguf.is_gguf(source)


def has_commit(source: str) -> bool:
    """Whether its revision is a commit that the Hub can be asked for: not the hash of a folder or a file."""
    return not (looks_like_path(source) or gguf.is_gguf(source) or Path(source).is_dir())


def check_name(source: str, *, revision: str | None = None) -> None:
    """Refuses a model that is not there, before questions are fetched or weights are read.

    Only a configuration is fetched for that, or the whole of a GGUF file, which is one file.

    Raises:
        ModelError: no such folder or file, or a name that the Hub does not know, or does not let in; with
            what was probably meant.
    """
    if source == TOY or Path(source).is_dir():
        return
    if looks_like_path(source):
        check_path(Path(source).expanduser())
        return
    check_spelling(source)
    from huggingface_hub import errors, hf_hub_download

    try:
        with cache_where_offline():
            if gguf.on_hub(source):
                gguf.local_file(source, revision=revision)
            else:
                hf_hub_download(source, "config.json", revision=revision)
    except errors.RemoteEntryNotFoundError as error:
        if gguf.on_hub(source):
            raise ModelError(explain(error, source, revision, "cannot load")) from error
        # the repository is there: loading says what it lacks
    except CAUSES as error:
        if not _on_hub(source, ADAPTER, revision):  # without a network, an adapter in the cache will do
            raise ModelError(explain(error, source, revision, "cannot load")) from error


def revision_of(source: str, hf_model: Any, *, revision: str | None = None) -> str | None:
    """The Hub's commit, or a hash: of the folder's weights and configuration, or of the GGUF file."""
    if gguf.is_gguf(source):
        return gguf.hash_of(gguf.local_file(source, revision=revision))
    folder = Path(source)
    if not folder.is_dir():
        return getattr(hf_model.config, "_commit_hash", None)
    weights = [file for pattern in WEIGHTS for file in folder.glob(pattern)]
    return hash_of_files([*weights, folder / "config.json"])


def explain(error: BaseException, source: str, revision: str | None, doing: str) -> str:
    """One line on why something could not be loaded, and what would be right."""
    from huggingface_hub import errors as hub

    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__

    def is_a(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if (found := gguf.ON_HUB.fullmatch(source)) is not None:
        source = found["name"]
        if is_a(hub.RemoteEntryNotFoundError):
            page = f"https://huggingface.co/{source}/tree/main"
            return f"{source!r} has no file {found['file']!r}: {page} lists them"
    if is_a(hub.GatedRepoError) or "gated repo" in str(error):
        return (
            f"{source!r} is gated: accept its terms at https://huggingface.co/{source} and log in with `hf"
            " auth login` (or set HF_TOKEN)"
        )
    if is_a(hub.RevisionNotFoundError):
        return f"{source!r} has no revision {revision!r}: give a branch, tag or commit of its Hub page"
    if is_a(hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled) or "couldn't connect to" in str(error):
        near = nearest(source, PAPER_MODELS)
        meant = f" (did you mean {near}?)" if near is not None and near != source else ""
        return (
            f"{source!r} is no folder, and not in the local cache while the Hub cannot be reached: check the"
            f" name{meant} and the network"
        )
    if is_a(hub.RepositoryNotFoundError, hub.HFValidationError) or "not a valid model identifier" in str(
        error
    ):
        return no_model(source)
    if "model.safetensors" in str(error):
        return (
            f"{doing} {source!r}: it has no weights in safetensors, and pickled ones (.bin), which can run"
            f" code, are not read: where you trust them, convert them once, {CONVERT.format(source=source)}"
        )
    return f"{doing} {source!r}: {first_line(error)}"
