"""Baking: a model with neurons suppressed, written as an ordinary Hugging Face checkpoint that any tool can evaluate.

A neuron's output is silenced for good by zeroing the weights (and bias) that produce it, or, for `mlp.post`, those that read
it. The files are changed tensor by tensor: what is not touched, vision parts included, stays as it is to the bit.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import io
from ..data.neurons import NeuronSet, Site
from ..defaults import TOY
from ..errors import NeuronError
from .weights import PARAMETER, checkpoint_folder, copy_rest, new_folder, read_config, rewrite

_Rows = dict[Site, np.ndarray]
"""Site -> indices of the suppressed neurons in one layer."""


def bake(model_folder: str | Path, neurons: NeuronSet, out_folder: str | Path) -> Path:
    """Writes the model with the neurons suppressed; its logits are those of ``ablate(model, neurons)``.

    Args:
        model_folder: a Hugging Face checkpoint in safetensors, or "toy".
        neurons: to suppress. A set of several countries suppresses all of them.
        out_folder: a new or empty folder; the tokenizer and everything else is copied, and `culnig_tl.json` tells what was done.

    Returns:
        `out_folder`.

    Raises:
        ModelError: no checkpoint there, an architecture whose weights are not known, a quantized one, a folder that is in use.
        NeuronError: an empty set, or neurons that the checkpoint does not have.
    """
    folder, out = (
        checkpoint_folder(model_folder) if str(model_folder) == TOY else Path(model_folder),
        Path(out_folder),
    )
    config = read_config(folder).get_text_config()
    if not len(neurons):
        raise NeuronError("the set is empty: the baked model would be the model itself")
    by_layer: dict[int, _Rows] = defaultdict(dict)
    for (site, layer), index in neurons.indices.items():
        by_layer[layer][site] = index
    waiting = {(site, layer) for site, layer in neurons.indices}

    def silence(name: str, tensor: Tensor) -> Tensor:
        """The tensor without what the neurons are made of; what it silenced leaves `waiting`."""
        found = PARAMETER.search(name)
        if (
            found is None
            or "vision" in name
            or int(found["layer"]) not in by_layer
            or found["rest"].count(".") != 1
        ):
            return tensor
        layer, bias = int(found["layer"]), found["rest"].endswith(".bias")
        places = _places(found["parent"], found["module"], config, tensor)
        for site, index in by_layer[layer].items():
            if site not in places or (bias and site is Site.MLP_POST):
                continue  # the bias of the layer that reads the neuron is not the neuron's
            axis, locate = places[site]
            axis = 0 if bias else axis
            at = locate(index)
            if at.max() >= tensor.shape[axis]:
                raise NeuronError(
                    f"neuron ({site}, {layer}, {index[-1]}) lies outside {name} of shape {tuple(tensor.shape)}: the set is of another model"
                )
            tensor.index_fill_(axis, torch.from_numpy(at), 0)
            waiting.discard((site, layer))
        return tensor

    with new_folder(out):
        rewrite(folder, out, silence)
        if waiting:
            site, layer = min(waiting, key=lambda place: (place[1], place[0].value))
            raise NeuronError(
                f"the set has neurons of {site} in layer {layer}, no weight in {folder} makes them: it is of another model"
            )
        copy_rest(folder, out)
        record = {
            "suppressed": len(neurons.keys()),
            "neurons": neurons.hash,
            "provenance": asdict(neurons.provenance),
            "from": str(model_folder),
        }
        io.write(out / "culnig_tl.json", json.dumps(record, indent=1, ensure_ascii=False).encode())
    return out


def _places(
    parent: str, module: str, config: Any, tensor: Tensor
) -> dict[Site, tuple[int, Callable[[np.ndarray], np.ndarray]]]:
    """Site -> (axis of the weight, where on it a neuron sits) for one linear module; {} for one that holds no neurons.

    Raises `NeuronError` for a neuron beyond a fused part.
    """
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = getattr(config, "num_key_value_heads", None) or heads

    def part(start: int, width: int) -> Callable[[np.ndarray], np.ndarray]:
        def locate(index: np.ndarray) -> np.ndarray:
            if index[-1] >= width:
                raise NeuronError(
                    f"neuron {index[-1]} lies outside {module}, which has {width:,}: the set is of another model"
                )
            return start + index

        return locate

    def of_head(which: int) -> Callable[[np.ndarray], np.ndarray]:
        """GPT-NeoX: head by head, each with its q, k and v."""
        plain = part(0, heads * size)
        return lambda index: (plain(index) // size * 3 + which) * size + index % size

    half = tensor.shape[0] // 2
    q, k = heads * size, keys * size
    # Linear holds [out, in], GPT-2's Conv1D [in, out].
    known: dict[str, dict[Site, tuple[int, Callable[[np.ndarray], np.ndarray]]]] = {
        "gate_proj": {Site.MLP_GATE: (0, lambda i: i)},
        "up_proj": {Site.MLP_UP: (0, lambda i: i)},
        "gate_up_proj": {Site.MLP_GATE: (0, part(0, half)), Site.MLP_UP: (0, part(half, half))},
        "down_proj": {Site.MLP_POST: (1, lambda i: i)},
        "dense_h_to_4h": {Site.MLP_GATE: (0, lambda i: i)},
        "dense_4h_to_h": {Site.MLP_POST: (1, lambda i: i)},
        "c_fc": {Site.MLP_GATE: (1, lambda i: i)},
        "q_proj": {Site.ATTN_Q: (0, lambda i: i)},
        "k_proj": {Site.ATTN_K: (0, lambda i: i)},
        "v_proj": {Site.ATTN_V: (0, lambda i: i)},
        "qkv_proj": {
            Site.ATTN_Q: (0, part(0, q)),
            Site.ATTN_K: (0, part(q, k)),
            Site.ATTN_V: (0, part(q + k, k)),
        },
        "query_key_value": {
            Site.ATTN_Q: (0, of_head(0)),
            Site.ATTN_K: (0, of_head(1)),
            Site.ATTN_V: (0, of_head(2)),
        },
        "c_attn": {
            Site.ATTN_Q: (1, part(0, q)),
            Site.ATTN_K: (1, part(q, q)),
            Site.ATTN_V: (1, part(2 * q, q)),
        },
    }
    if parent == "mlp":  # GPT-2 calls two different modules c_proj
        known["c_proj"] = {Site.MLP_POST: (0, lambda i: i)}
    return known.get(module, {})
