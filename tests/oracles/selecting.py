"""Selection, word for word: sorted Python lists, one neuron at a time. Shares no code with the package.

Scores come as {(country, site, layer): one number a neuron}, as `literal.scores` gives them.
"""

from __future__ import annotations

from statistics import fmean, pstdev

ORDER = ["mlp.gate", "mlp.up", "mlp.post", "attn.q", "attn.k", "attn.v"]
Scores = dict[tuple[str, str, int], list[float]]
Neuron = tuple[int, int, int]
"""(rank of the site, layer, index): ties go to the lower."""


def pooled(scores: Scores, sites: list[str], country: str | None) -> dict[Neuron, float]:
    """One number a neuron of the pool: one country's, or the sum over all."""
    values: dict[Neuron, float] = {}
    for (name, site, layer), row in scores.items():
        if site in sites and country in (None, name):
            for index, value in enumerate(row):
                neuron = (ORDER.index(site), layer, index)
                values[neuron] = values.get(neuron, 0.0) + value
    return values


def top(values: dict[Neuron, float], share: float) -> set[Neuron]:
    return set(sorted(values, key=lambda neuron: (-values[neuron], neuron))[: int(len(values) * share)])


def difference(
    neuron: Scores, n: int, control: Scores, m: int, sites: list[str], country: str | None
) -> dict[Neuron, float]:
    ours, theirs = pooled(neuron, sites, country), pooled(control, sites, country)
    return {key: value / n - theirs[key] / m for key, value in ours.items()}


def general(
    neuron: Scores,
    n: int,
    control: Scores,
    m: int,
    reading: Scores,
    top_mlp: float,
    top_attn: float,
    drop_reading: float,
) -> set[Neuron]:
    chosen: set[Neuron] = set()
    for sites, share in ((["mlp.gate"], top_mlp), (["attn.q", "attn.k", "attn.v"], top_attn)):
        chosen |= top(difference(neuron, n, control, m, sites, None), share) - top(
            pooled(reading, sites, None), drop_reading
        )
    return chosen


def contrasted(
    neuron: Scores,
    n: int,
    control: Scores,
    m: int,
    reading: Scores,
    others: list[tuple[Scores, int]],
    way: str,
    over: float,
    top_mlp: float,
    top_attn: float,
    drop_reading: float,
) -> set[Neuron]:
    """`general` with tasks without culture held against every neuron."""

    def z(values: dict[Neuron, float]) -> dict[Neuron, float]:
        mean, spread = fmean(values.values()), pstdev(values.values())
        return {key: (value - mean) / spread for key, value in values.items()}

    def rank(values: dict[Neuron, float]) -> dict[Neuron, float]:
        every = list(values.values())
        return {
            key: (sum(v < value for v in every) + (sum(v == value for v in every) + 1) / 2) / len(every)
            for key, value in values.items()
        }

    chosen: set[Neuron] = set()
    for sites, share in ((["mlp.gate"], top_mlp), (["attn.q", "attn.k", "attn.v"], top_attn)):
        values = difference(neuron, n, control, m, sites, None)
        plain = [{key: v / k for key, v in pooled(some, sites, None).items()} for some, k in others]
        count = int(len(values) * share)
        if way == "filter":
            values = {key: v for key, v in values.items() if all(z(some)[key] <= over for some in plain)}
        else:
            scaled = z if way == "subtract" else rank
            worst = [scaled(some) for some in plain]
            values = {key: v - max(some[key] for some in worst) for key, v in scaled(values).items()}
        best = sorted(values, key=lambda key: (-values[key], key))[:count]
        chosen |= set(best) - top(pooled(reading, sites, None), drop_reading)
    return chosen


def specific(
    neuron: Scores,
    n: int,
    control: Scores,
    m: int,
    reading: Scores,
    country: str,
    t: float,
    drop_reading: float,
    z: float,
) -> set[Neuron]:
    sites = ["mlp.gate", "attn.q", "attn.k", "attn.v"]
    each = {
        name: difference(neuron, n, control, m, sites, name)
        for name in sorted({name for name, _, _ in neuron})
    }
    candidates = top(each[country], t) - top(pooled(reading, sites, country), drop_reading)
    kept = set()
    for key in candidates:
        values = [each[name][key] for name in each]
        if pstdev(values) > 0 and (each[country][key] - sum(values) / len(values)) / pstdev(values) >= z:
            kept.add(key)
    return kept
