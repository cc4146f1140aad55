"""Whether a model fits in memory, said before it is loaded."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ..defaults import TOY
from ..errors import ModelError
from ..io import first_line
from . import gguf
from .loading import adapter_base, adapter_folder, is_adapter, looks_like_path, pretrained, without_weights
from .models import pick_device, pick_dtype
from .world import processes_here

log = logging.getLogger(__name__)

GIB = 1024**3
_LIMITS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""What containers and queues allow and count, in version 2 and 1 of control groups: folder, limit, use."""


def parameter_count(source: str, *, revision: str | None = None) -> int:
    """Weights of a language model, by its configuration or its GGUF file's header: no weight is read.

    Raises whatever transformers raises for a configuration that it cannot make a language model of.
    """
    from transformers import AutoConfig

    if gguf.is_gguf(source):
        return gguf.check_file(gguf.local_file(source, revision=revision)).weights
    config = pretrained(AutoConfig, source, revision=revision)
    if config.model_type == "gemma3":  # the language model alone, as `loading.load_plain` takes it
        config = config.text_config
    return sum(parameter.numel() for parameter in without_weights(config).parameters())


def check_memory(
    source: str,
    *,
    device: str = "auto",
    device_map: str | None = None,
    dtype: str = "auto",
    revision: str | None = None,
) -> None:
    """Raises `ModelError` with a clear estimate where the model's weights have no room where they would be
    loaded.

    A configuration that cannot be read is left to the loading, which says what is wrong with it.
    """
    if source == TOY or device_map is not None:  # accelerate spreads those over what there is
        return
    if looks_like_path(source):
        source = str(Path(source).expanduser())
    if is_adapter(source, revision):  # the adapter itself is small
        source, revision = adapter_base(adapter_folder(source, revision)), None
    where = pick_device(device)
    number = pick_dtype(dtype, where)
    try:
        need = parameter_count(source, revision=revision) * number.itemsize
    except Exception as error:  # config classes and their authors raise anything; loading meets it again
        log.info("no estimate of the memory that %s needs: %s", source, first_line(error))
        return
    places = {"memory": free_here() // processes_here()}
    if where.type == "cuda":
        places["memory of the GPU"] = torch.cuda.mem_get_info(where)[0]
    for place, free in places.items():
        if need > free:
            parts = [
                f"{source} needs about {gib(need)} of {place} in {str(number).removeprefix('torch.')},"
                f" {gib(free)} are free"
            ]
            if processes_here() > 1 and place == "memory":
                parts.append(f"for each of {processes_here()} processes")
            smaller = "" if number.itemsize <= 2 else "--dtype bfloat16 halves it; "
            raise ModelError(f"{' '.join(parts)}: {smaller}--device-map auto spreads it over GPUs and memory")


def free_here() -> int:
    """Bytes of memory that this process may still take: of the machine's, and of what a container or queue
    allows."""
    import psutil

    free = psutil.virtual_memory().available
    for folder, limit, used in _LIMITS:
        try:
            allowed, taken = (int(Path(folder, name).read_text()) for name in (limit, used))
            counts = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no control groups of this version, or "max"
            continue
        free = min(
            free, allowed - taken + int(counts.get("inactive_file", 0))
        )  # cached files are given up when needed
    return max(0, free)


def gib(size: float) -> str:
    """A number of bytes, readable."""
    return f"{size / GIB:.1f} GiB" if size < 10 * GIB else f"{size / GIB:.0f} GiB"
