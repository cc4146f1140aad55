"""Depth: how many of the neurons are in the shallow, the middle and the deep third of the layers, against the
whole pool."""

from __future__ import annotations

import pandas as pd
from scipy import stats

from ..data.neurons import NeuronSet, Site
from ..errors import NeuronError

THIRDS = ("shallow", "middle", "deep")


def depth_thirds(neurons: NeuronSet, *, confidence: float = 0.95) -> pd.DataFrame:
    """Share of the neurons in each third of the layers, with an interval, beside the pool's share there.

    Layer l of L belongs to third int(3 l / L). Intervals are Wilson's; p is that of the exact two-sided
    binomial test against the pool's share. Both treat neurons as independent, which those of one layer are
    not quite. A neuron of several countries counts once.

    Returns:
        One row per pool ("mlp", "attn", "all") and third; columns neurons, percent with its interval
        low..high, pool_percent, p.

    Raises:
        NeuronError: an empty set, or one whose provenance does not say how many layers and neurons there are.
    """
    layers, widths = neurons.provenance.layers, neurons.provenance.pool
    if not layers or not widths:
        raise NeuronError(
            "this set does not know its model's layers and widths: take one that was selected from scores"
        )
    if not len(neurons):
        raise NeuronError("an empty set has no depth: take a larger share or drop less for reading")
    sizes = [sum(3 * layer // layers == third for layer in range(layers)) for third in range(3)]
    table = neurons.table.drop_duplicates(["site", "layer", "neuron"])
    third = 3 * table["layer"] // layers
    pool = table["site"].map({site.value: site.pool for site in Site})
    rows = {}
    for name in ("mlp", "attn", "all"):
        inside = pool == name if name != "all" else pool.notna()
        total = int(inside.sum())
        if not total:
            continue
        for number, label in enumerate(THIRDS):
            count = int((inside & (third == number)).sum())
            share = sizes[number] / layers
            interval = stats.binomtest(count, total).proportion_ci(confidence, method="wilson")
            p = stats.binomtest(count, total, share).pvalue
            rows[name, label] = (
                count,
                100 * count / total,
                100 * interval.low,
                100 * interval.high,
                100 * share,
                p,
            )
    out = pd.DataFrame.from_dict(
        rows, orient="index", columns=["neurons", "percent", "low", "high", "pool_percent", "p"]
    )
    out.index = pd.MultiIndex.from_tuples(out.index, names=["pool", "third"])
    return out
