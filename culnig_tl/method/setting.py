"""What a result says of its setting: the model, the questions, the neurons, and what was done to them."""

from __future__ import annotations

from typing import Any

from ..data.neurons import NeuronSet
from ..engine.models import HookedModel, describe
from ..engine.prompts import Asked
from ..engine.run import Ran
from ..version import __version__


def about_setting(
    model: HookedModel, asked: Asked, neurons: NeuronSet | None, operation: str, ran: Ran, **of_task: Any
) -> dict[str, Any]:
    """An `EvaluationResult`'s metadata.

    Args:
        of_task: what is true of this task alone; kept by the task's name, so that results can be put
            together.
    """
    info, name = describe(model), asked.task.name
    of_task = {
        "form": asked.whole.form,
        "splits": asked.whole.split,
        "batch_sizes": ran.batch_sizes,
        "too_long": asked.too_long,
        **of_task,
    }
    return {
        "model": info.name,
        "revision": info.revision,
        "dtype": info.dtype,
        "neurons": neurons.hash if neurons is not None else None,
        "neuron_count": len(neurons.keys()) if neurons is not None else 0,
        "operation": None if neurons is None else operation,
        "setting": "unchanged" if neurons is None else f"{neurons.provenance.kind}, {operation}",
        "version": __version__,
        "native_attention": ran.native,
        "identity": ran.identity,
        "fingerprints": {name: asked.whole.fingerprint},
        **{key: {name: value} for key, value in of_task.items()},
    }
