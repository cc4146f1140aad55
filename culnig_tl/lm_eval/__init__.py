"""With lm-evaluation-harness: an ablated model as a model of the harness (`lm_eval_model`, and ``culnig`` on
its command line), and the package's tasks as tasks of the harness (`export_task`)."""

from __future__ import annotations

from typing import Any

from ..data.neurons import NeuronMeans, NeuronSet
from ..engine.models import HookedModel


def lm_eval_model(
    model: HookedModel,
    neurons: NeuronSet | None = None,
    *,
    scale: float = 0.0,
    to: NeuronMeans | None = None,
    **options: Any,
) -> Any:
    """The model, with neurons ablated, as lm-evaluation-harness takes one:

        lm_eval.simple_evaluate(ctl.lm_eval_model(model, general), tasks=["hellaswag"])

    Log-likelihoods, rolling log-likelihoods and generation are the harness' own, those of its model ``hf``;
    the hooks are on the model while it computes them, and at no other time.

    Args:
        model: what `load_model` returns, or a bridge or HookedTransformer of the user's. The latter generates
            greedily, without a cache.
        neurons: whose outputs are multiplied by `scale` (0 suppresses, 2 enhances) or replaced by their means
            `to`; None leaves the model unchanged.
        options: of the harness' ``hf`` that concern a loaded model, e.g. ``batch_size=16``, ``max_length=``,
            ``add_bos_token=``.

    Raises:
        CulnigError: lm-evaluation-harness is not installed.
        NeuronError: a scale that is not finite, both scale and means, or neurons that the model does not
            have.
    """
    from .registered import CulnigLM

    return CulnigLM(model, neurons, scale=scale, to=to, **options)
