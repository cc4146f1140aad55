"""Baking: a model with neurons suppressed, as an ordinary Hugging Face checkpoint for any other tool.

A neuron's output is silenced for good by zeroing the weights (and bias) that produce it, or, for `mlp.post`,
those that read it. The files are changed tensor by tensor: what is not touched keeps its bits, vision parts
included.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.neurons import NeuronSet, Site
from ..errors import ModelError, NeuronError
from .weights import copy_rest, new_folder, opened_checkpoint, place_of, read_config, rewrite, write_json

_QKV = (Site.ATTN_Q, Site.ATTN_K, Site.ATTN_V)
_MODULES: dict[str, tuple[int, tuple[Site, ...]]] = {
    "mlp.gate_proj": (0, (Site.MLP_GATE,)),
    "mlp.up_proj": (0, (Site.MLP_UP,)),
    "mlp.gate_up_proj": (0, (Site.MLP_GATE, Site.MLP_UP)),
    "mlp.down_proj": (1, (Site.MLP_POST,)),
    "mlp.dense_h_to_4h": (0, (Site.MLP_GATE,)),
    "mlp.dense_4h_to_h": (1, (Site.MLP_POST,)),
    "mlp.c_fc": (1, (Site.MLP_GATE,)),
    "mlp.c_proj": (0, (Site.MLP_POST,)),
    "attn.q_proj": (0, (Site.ATTN_Q,)),
    "attn.k_proj": (0, (Site.ATTN_K,)),
    "attn.v_proj": (0, (Site.ATTN_V,)),
    "attn.qkv_proj": (0, _QKV),
    "attn.query_key_value": (0, _QKV),
    "attn.c_attn": (1, _QKV),
}
"""Linear module -> (axis of its weight along which neurons lie, their sites in this order). Linear stores
[out, in], GPT-2's Conv1D [in, out]."""


def bake(model_folder: Any, neurons: NeuronSet, out_folder: str | Path) -> Path:
    """Writes the model with the neurons suppressed; its logits are those of ``ablate(model, neurons)``.

    Args:
        model_folder: a Hugging Face checkpoint in safetensors, a GGUF file (its weights are dequantised to
            float32), or "toy".
        neurons: to suppress. A set of several countries suppresses all of them.
        out_folder: a new or empty folder. The tokenizer and everything else is copied; `culnig_tl.json`
            records what was done.

    Returns:
        `out_folder`.

    Raises:
        ModelError: a loaded model, no checkpoint there, a quantized one, or a folder that is in use.
        NeuronError: an empty set, or neurons that the checkpoint does not have.
    """
    out = Path(out_folder)
    if not isinstance(model_folder, (str, Path)):
        raise ModelError(
            f"bake takes a checkpoint's folder, not a loaded model ({type(model_folder).__name__}): give what"
            " it was loaded from"
        )
    if not len(neurons):
        raise NeuronError("the set is empty: the baked model would be the model itself")
    with opened_checkpoint(model_folder) as folder:
        _bake(folder, neurons, out, str(model_folder))
    return out


def _bake(folder: Path, neurons: NeuronSet, out: Path, name: str) -> None:
    config = read_config(folder).get_text_config()
    by_layer: dict[int, dict[Site, np.ndarray]] = defaultdict(dict)
    for (site, layer), index in neurons.indices.items():
        by_layer[layer][site] = index
    waiting = set(neurons.indices)

    def silence(name: str, tensor: Tensor) -> Tensor:
        """The tensor without what the neurons are made of; what it silenced leaves `waiting`."""
        layer, kind, rest = place_of(name) or (-1, "mlp", "")
        module, _, what = rest.partition(".")
        if f"{kind}.{module}" not in _MODULES or what not in ("weight", "bias"):
            return tensor
        axis, sites = _MODULES[f"{kind}.{module}"]
        axis = 0 if what == "bias" else axis
        for site, index in by_layer[layer].items():
            if site not in sites or (what == "bias" and site is Site.MLP_POST):
                continue  # the bias of the layer that reads the neuron is not the neuron's
            at, width = _positions(site, index, sites, tensor.shape[axis], config, module)
            if index[-1] >= width:
                raise NeuronError(
                    f"neuron ({site}, {layer}, {index[-1]}) lies outside {name}, which has {width:,}: "
                    "the set is of another model"
                )
            tensor.index_fill_(axis, torch.from_numpy(at), 0)
            waiting.discard((site, layer))
        return tensor

    with new_folder(out):
        rewrite(folder, out, silence)
        if waiting:
            site, layer = min(waiting, key=lambda place: (place[1], place[0].value))
            raise NeuronError(
                f"{folder} has no weight that makes {site} in layer {layer}: the set is of another model"
            )
        copy_rest(folder, out)
        made_of = {"provenance": asdict(neurons.provenance), "from": name}
        record = {"suppressed": len(neurons.keys()), "neurons": neurons.hash, **made_of}
        write_json(out / "culnig_tl.json", record)


def _positions(
    site: Site, index: np.ndarray, sites: tuple[Site, ...], size: int, config: Any, module: str
) -> tuple[np.ndarray, int]:
    """(where a site's neurons lie among the `size` of a module, how many neurons of that site it has)."""
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    fused = {Site.ATTN_Q: heads * head, Site.ATTN_K: keys * head, Site.ATTN_V: keys * head}
    widths = fused if sites == _QKV else dict.fromkeys(sites, size // len(sites))
    before = sites[: sites.index(site)]
    if module == "query_key_value":  # GPT-NeoX: head by head, each with its q, k and v
        return (index // head * 3 + len(before)) * head + index % head, widths[site]
    return index + sum(widths[each] for each in before), widths[site]
