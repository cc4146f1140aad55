"""The methods by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...errors import ScoreError
from ...names import which
from .base import Method
from .cape import Cape
from .culnig import Culnig, CulnigMean, CulnigMeanPost, CulnigPost, CulnigSum, CulnigSumPost
from .integrated_gradients import IntegratedGradients, IntegratedGradientsAll
from .lape import Lape
from .mean_difference import MeanDifference
from .patching import AttributionPatching
from .patching_qk import AttributionPatchingQK
from .random_scores import Random

METHODS: Mapping[str, type[Method]] = {
    method.name: method
    for method in (
        Culnig,
        CulnigSum,
        CulnigMean,
        CulnigPost,
        CulnigSumPost,
        CulnigMeanPost,
        IntegratedGradients,
        IntegratedGradientsAll,
        AttributionPatching,
        AttributionPatchingQK,
        Lape,
        Cape,
        MeanDifference,
        Random,
    )
}
"""Name -> method, in the order of tables."""


def parse_methods(names: Iterable[str]) -> tuple[str, ...]:
    """The names, checked, each once, in the order of `METHODS`. Raises `ScoreError` for an unknown one, or
    none."""
    asked = list(names)
    for name in asked:
        if name not in METHODS:
            raise ScoreError(f"unknown method {name!r}{which(name, METHODS)}")
    if not asked:
        raise ScoreError(f"no method is asked for: there are {', '.join(METHODS)}")
    return tuple(name for name in METHODS if name in set(asked))
