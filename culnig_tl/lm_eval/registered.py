"""The model ``culnig`` of lm-evaluation-harness: importing this module registers it.

    python -m culnig_tl.lm_eval --model culnig \\
        --model_args pretrained=Qwen/Qwen3-0.6B,neurons=general.parquet,operation=suppress --tasks hellaswag
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..data.neurons import NeuronMeans, NeuronSet
from ..engine.models import HookedModel, describe, device_of, last_logits, load_model, tokenizer_of
from ..engine.probe import probe_forward
from ..engine.prompts import tokenize
from ..engine.workarounds import is_bridge, native_attention
from ..errors import ModelError, NeuronError
from ..method.ablation import ablation_hooks, operation_name
from ..tasks.harness import harness

HFLM: Any = harness("lm_eval.models.huggingface").HFLM
register: Any = harness("lm_eval.api.registry").register_model

OPERATIONS = {"suppress": 0.0, "enhance": 2.0}
"""Operation -> what the neurons' outputs are multiplied by."""
_PROBE = "Question: Which kernel gives the same logits?\nAnswer:"


@register("culnig")
class CulnigLM(HFLM):
    """The harness' ``hf``, on a hooked transformer with neurons ablated."""

    def __init__(
        self,
        pretrained: str | HookedModel,
        neurons: str | NeuronSet | None = None,
        *,
        operation: str | None = None,
        scale: float = 0.0,
        to: NeuronMeans | None = None,
        device: str | None = None,
        dtype: str = "auto",
        revision: str | None = None,
        device_map: str | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            pretrained: a model, or what `load_model` loads, with the four arguments after `to`.
            neurons: to ablate, or a file of them (.parquet, .csv, or the authors' .json).
            operation: "suppress" or "enhance"; instead of `scale`.
            scale, to: as in `ablate`.
            options: of the harness' ``hf`` that concern a loaded model.
        """
        if operation is not None and operation not in OPERATIONS:
            raise NeuronError(f"operation {operation!r} is unknown: use {' or '.join(OPERATIONS)}, or scale=")
        if operation is not None and scale:
            raise NeuronError("operation and scale exclude each other: give one of them")
        if neurons is None and (operation is not None or scale or to is not None):
            raise NeuronError("name the neurons as well: neurons=general.parquet")
        where: dict[str, Any] = {"device": device or "auto", "dtype": dtype, "revision": revision}
        if device_map is not None:
            where |= {"device": "auto", "device_map": device_map}
        model: Any = load_model(pretrained, **where) if isinstance(pretrained, str) else pretrained
        chosen = NeuronSet.load(neurons) if isinstance(neurons, str) else neurons
        scale = OPERATIONS[operation] if operation is not None else float(scale)
        self._hooked = model
        self._hooks = [] if chosen is None else ablation_hooks(model, chosen, scale=scale, to=to)
        self._ablated = {
            "neurons": None if chosen is None else chosen.hash,
            "neuron_count": 0 if chosen is None else len(chosen.keys()),
            "operation": None if chosen is None else operation_name(scale, to),
        }
        sentence = tokenize(tokenizer_of(model), [_PROBE], plain=True)[0]
        self._native = probe_forward(model, [name for name, _ in self._hooks], sentence).native
        plain = model.original_model if is_bridge(model) else _Shaped(model)
        tokenizer = copy.deepcopy(tokenizer_of(model))  # the harness may give it a padding token
        super().__init__(plain, tokenizer=tokenizer, backend="causal", **options)

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes into its results: the model, and what was done to which neurons."""
        about = describe(self._hooked)
        known = {"model": about.name, "model_revision": about.revision, "model_dtype": about.dtype}
        return {f"culnig_{name}": value for name, value in {**known, **self._ablated}.items()}

    def _model_call(self, *inputs: Any, **more: Any) -> Tensor:
        with self._ablation():
            return super()._model_call(*inputs, **more)

    @torch.no_grad()
    def _model_generate(self, *inputs: Any, **more: Any) -> Tensor:
        with self._ablation():
            return super()._model_generate(*inputs, **more)

    @contextmanager
    def _ablation(self) -> Iterator[None]:
        with native_attention(self._hooked, self._native), self._hooked.hooks(fwd_hooks=self._hooks):
            yield


class _Shaped(torch.nn.Module):
    """A HookedTransformer with the face of a Hugging Face model, as far as the harness looks."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config, self.device = model, model.cfg, device_of(model)

    def tie_weights(self) -> None:
        """Nothing: a HookedTransformer ties none."""

    def forward(self, tokens: Tensor) -> Any:
        """Logits of tokens that are padded on the right, if at all: nothing before them is masked."""
        mask = torch.ones_like(tokens)
        logits = self.model(tokens, attention_mask=mask, padding_side="left", return_type="logits")
        return SimpleNamespace(logits=logits)

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        max_length: int,
        stopping_criteria: Any,
        do_sample: bool = False,
        use_cache: bool = True,
        pad_token_id: int | None = None,
        **unknown: Any,
    ) -> Tensor:
        """Prompts, padded on the left, and the likeliest tokens after each."""
        if do_sample or unknown:
            raise ModelError(
                f"a HookedTransformer generates greedily here, without {next(iter(unknown), 'sampling')}:"
                ' load the model with kind="bridge"'
            )
        tokens, mask, ends = input_ids, attention_mask, self.model.tokenizer.eos_token_id
        open_rows = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        while tokens.shape[1] < max_length and open_rows.any():
            likeliest = last_logits(self.model, tokens, mask).argmax(-1)
            likeliest = likeliest.masked_fill(~open_rows, pad_token_id or 0)
            tokens = torch.cat([tokens, likeliest[:, None]], dim=1)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            open_rows &= (likeliest != ends) & ~stopping_criteria(tokens, None)
        return tokens
