"""`NeuronScores`: the attribution of every neuron, summed over the questions of each country."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from .. import io
from ..errors import ScoreError
from ..names import which
from .neurons import Site

NO_COUNTRY = "-"
"""Row of the questions that are about no country."""
_FORMAT = "culnig_tl scores 2"
_REPLICATES = "replicates"


@dataclass(frozen=True)
class NeuronScores:
    """S_c(D): for every country c, the sum over its questions of P(answer) times a neuron's attribution."""

    arrays: Mapping[Site, Float[np.ndarray, "country layer neuron"]]
    countries: tuple[str, ...]
    """Names of the arrays' first axis; `NO_COUNTRY` for questions without one."""
    questions: tuple[int, ...]
    """Number of questions per country."""
    p_answer: tuple[float, ...]
    """Sum of P(answer) over the questions, per country."""
    clusters: int
    """N_D: distinct underlying questions of all countries together. The authors' scripts divide by `rows`: of
    BLEnD up to five rows and 16 countries a question. The same neurons are selected, with scores that are
    smaller by clusters / rows; the authors' JSON is converted when it is written and read."""
    country_clusters: tuple[int, ...]
    """Distinct underlying questions per country."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Model, revision, task, fingerprint, method, and more."""
    replicates: Mapping[Site, Float[np.ndarray, "replicate country layer neuron"]] = field(
        default_factory=dict
    )
    """Poisson bootstrap replicates, if `score_neurons(..., bootstrap=B)` kept them."""
    replicate_clusters: tuple[tuple[int, ...], ...] = ()
    """For every replicate: N_D, then the clusters of each country, each counted as often as it was drawn."""

    def __post_init__(self) -> None:
        for site, array in self.arrays.items():
            if array.ndim != 3 or array.shape[0] != len(self.countries):
                shape = f"[country, layer, neuron] with {len(self.countries)} countries"
                raise ScoreError(f"scores of {site} have shape {array.shape}, not {shape}")
        if len({array.shape[1] for array in self.arrays.values()}) > 1:
            raise ScoreError("the sites of one model have the same number of layers")

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(self.arrays)

    @property
    def layers(self) -> int:
        return next(iter(self.arrays.values())).shape[1]

    @property
    def widths(self) -> dict[Site, int]:
        """Neurons per layer of each site."""
        return {site: array.shape[2] for site, array in self.arrays.items()}

    def width(self, site: Site, layer: int) -> int:
        """Neurons of a site in a layer: of those beyond, which the array holds too, there are none."""
        return int(self.metadata.get("by_layer", {}).get(site.value, {layer: self.widths[site]})[layer])

    @property
    def rows(self) -> int | None:
        """Distinct rows of the data set, whatever their wordings; None for scores that do not say."""
        return self.metadata.get("rows")

    @property
    def task(self) -> str:
        """Name of the task that was scored."""
        return str(self.metadata.get("task", "?"))

    @property
    def method(self) -> str:
        """Key of the method that scored it, e.g. "culnig"."""
        return str(self.metadata.get("method", "?"))

    def total(self, site: Site | str) -> Float[np.ndarray, "layer neuron"]:
        """Sum over the countries, computed in float64. Raises `ScoreError` for a site that was not scored."""
        return self._at(site).sum(axis=0, dtype=np.float64).astype(np.float32)

    def _at(self, site: Site | str) -> Float[np.ndarray, "country layer neuron"]:
        """A site's scores. Raises `ScoreError` for a site that was not scored."""
        wanted = Site.parse(site)
        if wanted not in self.arrays:
            raise ScoreError(f"no scores of {wanted} in {self.task}{which(wanted, self.sites, 'sites are')}")
        return self.arrays[wanted]

    def of(self, country: str) -> dict[Site, Float[np.ndarray, "layer neuron"]]:
        """One country's scores. Raises `ScoreError` for a country that was not scored."""
        if country not in self.countries:
            raise ScoreError(
                f"no scores of {country!r} in {self.task}{which(country, self.countries, 'countries are')}"
            )
        row = self.countries.index(country)
        return {site: array[row] for site, array in self.arrays.items()}

    def replicate(self, index: int) -> NeuronScores:
        """A bootstrap replicate as scores to select from. Questions and P(answer) stay as they are."""
        if not 0 <= index < len(self.replicate_clusters):
            raise ScoreError(
                f"no replicate {index}: "
                f"{len(self.replicate_clusters)} were kept (score_neurons(..., bootstrap=B))"
            )
        drawn, *by_country = self.replicate_clusters[index]
        return NeuronScores(
            arrays={site: array[index] for site, array in self.replicates.items()},
            countries=self.countries,
            questions=self.questions,
            p_answer=self.p_answer,
            clusters=drawn,
            country_clusters=tuple(by_country),
            metadata={**self.metadata, "replicate": index},
        )

    def __str__(self) -> str:
        shapes = ", ".join(
            f"{site} {array.shape[1]} x {array.shape[2]:,}" for site, array in self.arrays.items()
        )
        n = sum(self.questions)
        mean = sum(self.p_answer) / n if n else float("nan")
        right = f", {self.metadata['accuracy']:.1%} answered right" if "accuracy" in self.metadata else ""
        return (
            f"NeuronScores of {self.metadata.get('model', '?')} on {self.task}: "
            f"{n:,} questions in {self.clusters:,} clusters, "
            f"{len(self.countries)} countries ({', '.join(self.countries)}), "
            f"mean P(answer) {mean:.3f}{right}; {shapes}"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import html

        means = [p / max(n, 1) for p, n in zip(self.p_answer, self.questions)]
        table = pd.DataFrame(
            {"country": self.countries, "questions": self.questions, "mean P(answer)": means}
        )
        return f"<p><b>{html.escape(str(self))}</b></p>{table.to_html(index=False)}"

    def top(self, count: int = 20) -> pd.DataFrame:
        """The neurons with the highest score summed over the countries: site, layer, neuron, score."""
        parts: list[pd.DataFrame] = []
        for site in self.sites:
            total = self.total(site)
            best = np.argsort(-total, axis=None, kind="stable")[:count]
            layer, neuron = np.unravel_index(best, total.shape)
            parts.append(
                pd.DataFrame(
                    {"site": site.value, "layer": layer, "neuron": neuron, "score": total[layer, neuron]}
                )
            )
        return (
            pd.concat(parts)
            .sort_values("score", ascending=False, kind="stable")
            .head(count)
            .reset_index(drop=True)
        )

    def to_dataframe(self, site: Site | str | None = None) -> pd.DataFrame:
        """One row per neuron of one site or of all: site, layer, neuron, and a column per country."""
        parts: list[pd.DataFrame] = []
        for each in self.sites if site is None else [Site.parse(site)]:
            array = self._at(each)
            layer, neuron = np.indices(array.shape[1:]).reshape(2, -1)
            flat = array.reshape(len(self.countries), -1)
            parts.append(
                pd.DataFrame(
                    {"site": each.value, "layer": layer, "neuron": neuron, **dict(zip(self.countries, flat))}
                )
            )
        return pd.concat(parts, ignore_index=True)

    def save(self, path: str | Path) -> Path:
        """Writes safetensors: 4 bytes per neuron and country, all else as JSON in the header."""
        if Path(path).suffix in (".csv", ".json", ".parquet"):
            raise ScoreError(f"{Path(path).name}: scores are saved as .safetensors")

        header = {
            "format": _FORMAT,
            "countries": list(self.countries),
            "questions": list(self.questions),
            "p_answer": list(self.p_answer),
            "clusters": self.clusters,
            "country_clusters": list(self.country_clusters),
            "replicate_clusters": [list(counts) for counts in self.replicate_clusters],
            "metadata": dict(self.metadata),
        }
        tables = {site.value: array for site, array in self.arrays.items()}
        tables.update({f"{site.value} {_REPLICATES}": array for site, array in self.replicates.items()})
        arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in tables.items()}
        return io.write_tensors(path, arrays, header)

    @classmethod
    def load(cls, path: str | Path) -> NeuronScores:
        """Reads what `save` wrote. Raises `FileError` if the file holds no scores, or has changed since."""
        path = Path(path)
        with io.reading(path, "scores"), io.open_tensors(path, "numpy") as (header, stream):
            _check_header(header)
            names = {site.value for site in Site} | {f"{site.value} {_REPLICATES}" for site in Site}
            foreign = [name for name in stream.keys() if name not in names]
            if foreign:
                raise ScoreError(f"it holds {foreign[0][:60]!r}, which is no site")
            if not all(all(stream.get_slice(name).get_shape()) for name in stream.keys()):
                raise ScoreError("an array is empty")  # its shape could claim any number of layers
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}
            drawn = tuple(tuple(counts) for counts in header["replicate_clusters"])
            scores = {site: arrays[site.value] for site in Site if site.value in arrays}
            replicates = {site: arrays[f"{site.value} {_REPLICATES}"] for site in scores} if drawn else {}
            _check(arrays, scores, replicates, len(header["countries"]), len(drawn))
            lists = {name: tuple(header[name]) for name in ("countries", *_LISTS)}
            return cls(
                scores,
                clusters=header["clusters"],
                metadata=header["metadata"],
                replicates=replicates,
                replicate_clusters=drawn,
                **lists,
            )


_LISTS = ("questions", "p_answer", "country_clusters")
"""What the header holds for each country."""


def _check_header(header: Mapping[str, Any]) -> None:
    """Raises `ScoreError` where the header's content is not of the types that `save` wrote."""
    if header.get("format") != _FORMAT:
        raise ScoreError("written by another program or version")
    countries, drawn = header["countries"], header["replicate_clusters"]
    if not (
        isinstance(countries, list)
        and all(isinstance(name, str) for name in countries)
        and len(set(countries)) == len(countries)
    ):
        raise ScoreError("countries are no list of names")
    for name in _LISTS:
        values = header[name]
        if (
            not isinstance(values, list)
            or len(values) != len(countries)
            or not all(_is_count(value) for value in values)
        ):
            raise ScoreError(f"{name} are not {len(countries)} numbers from 0, one per country")
    if not (
        isinstance(drawn, list)
        and all(isinstance(counts, list) and len(counts) == 1 + len(countries) for counts in drawn)
    ):
        raise ScoreError(f"replicate_clusters are not lists of {1 + len(countries)} numbers")
    if not _is_count(header["clusters"]) or not isinstance(header["metadata"], dict):
        raise ScoreError("clusters or metadata are missing")


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _check(
    arrays: Mapping[str, np.ndarray],
    scores: Mapping[Site, np.ndarray],
    replicates: Mapping[Site, Any],
    countries: int,
    drawn: int,
) -> None:
    """Raises `ScoreError` for arrays that are not scores of this many countries and replicates."""
    if not scores:
        raise ScoreError("it holds no site")
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise ScoreError(f"scores of {name} are {array.dtype}, not float32")
        if not np.isfinite(array).all():
            raise ScoreError(f"scores of {name} hold NaN or infinity")
    for site, array in scores.items():
        if array.ndim != 3 or array.shape[0] != countries:
            wanted = f"[country, layer, neuron] with {countries} countries"
            raise ScoreError(f"scores of {site} have shape {array.shape}, not {wanted}")
        if site in replicates and replicates[site].shape != (drawn, *array.shape):
            raise ScoreError(
                f"replicates of {site} have shape {replicates[site].shape}, not {(drawn, *array.shape)}"
            )
