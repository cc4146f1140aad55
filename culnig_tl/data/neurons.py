"""Sites, neurons, and sets of neurons."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from .. import io
from ..defaults import PAPER_MODELS
from ..errors import FileError, NeuronError, TaskError
from ..names import which
from ..tasks.question import CONTROL
from ..tasks.rows import SHEETS, read_sheet

Pool = Literal["mlp", "attn"]


class Site(str, Enum):
    """One kind of place in a block whose output has neurons."""

    MLP_GATE = "mlp.gate"
    """Gate pre-activations of a gated MLP, or a plain MLP's first layer. Zeroing one silences the neuron."""
    MLP_UP = "mlp.up"
    """The linear branch of a gated MLP."""
    MLP_POST = "mlp.post"
    """The input of the MLP's output matrix: activation(gate) times up."""
    ATTN_Q = "attn.q"
    """Query coordinates, before q-norm and rotary embedding, heads one after another."""
    ATTN_K = "attn.k"
    """Key coordinates, before k-norm and rotary embedding, key/value heads one after another."""
    ATTN_V = "attn.v"
    """Value coordinates, key/value heads one after another."""

    def __str__(self) -> str:
        return self.value

    def hook_name(self, layer: int) -> str:
        """TransformerLens' name of the hook at this site in a layer."""
        return f"blocks.{layer}.{_HOOKS[self]}"

    @property
    def pool(self) -> Pool:
        """The neurons that it is ranked together with: the MLP's or attention's."""
        return "mlp" if self.value.startswith("mlp") else "attn"

    @classmethod
    def parse(cls, name: str | Site) -> Site:
        """The site of that name. Raises `NeuronError` if there is none."""
        try:
            return cls(name)
        except ValueError:
            raise NeuronError(
                f"unknown site {str(name)!r}{which(name, [s.value for s in cls], 'sites are')}"
            ) from None


_HOOKS = {
    Site.MLP_GATE: "mlp.hook_pre",
    Site.MLP_UP: "mlp.hook_pre_linear",
    Site.MLP_POST: "mlp.hook_post",
    Site.ATTN_Q: "attn.hook_q",
    Site.ATTN_K: "attn.hook_k",
    Site.ATTN_V: "attn.hook_v",
}
SITES: tuple[Site, ...] = (Site.MLP_GATE, Site.ATTN_Q, Site.ATTN_K, Site.ATTN_V)
"""The sites that CULNIG selects from (the paper scores `mlp.up` too and never selects it)."""

_SITE_ORDER = {site.value: i for i, site in enumerate(Site)}
_AUTHORS_NAMES = {
    Site.MLP_GATE: "mlp.gate_proj",
    Site.MLP_UP: "mlp.up_proj",
    Site.ATTN_Q: "self_attn.q_proj",
    Site.ATTN_K: "self_attn.k_proj",
    Site.ATTN_V: "self_attn.v_proj",
}
_COLUMNS = ("site", "layer", "neuron", "score")
_LARGEST_INDEX = 2**31 - 1
_REPEATED = ("returns", "wordings")
"""Columns that some sets have: the shares of bootstrap replicates and of wordings that select it too."""


@dataclass(frozen=True)
class Provenance:
    """Where a set of neurons comes from."""

    kind: str = "custom"
    """"culture-general", "culture-specific", "random", or a name chosen by the user."""
    model: str | None = None
    revision: str | None = None
    """The commit on the Hub, or a hash of the folder's content."""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """Task -> fingerprint of the questions that were scored."""
    thresholds: Mapping[str, float | str | int] = field(default_factory=dict)
    paper_defaults: bool | None = None
    """Whether the thresholds are the paper's."""
    pool: Mapping[str, int] = field(default_factory=dict)
    """Site -> number of neurons per layer that could have been chosen."""
    layers: int | None = None
    candidates: int | None = None
    """Neurons above the score threshold, before any are removed."""
    removed_by_reading: int | None = None
    """Candidates removed because they serve country reading comprehension."""
    removed_by_z: int | None = None
    """Candidates removed after that because they are not one country's own."""
    by_country: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of a culture-specific set: country -> its candidates, removed_by_reading and removed_by_z."""
    shared_pattern: float | None = None
    """Of a culture-specific set: rank-1 share of the country x neuron matrix; near 1 countries are alike."""
    form: str = "letters"
    """Of the questions that were scored: "letters" or "cloze"."""
    clusters: int | None = None
    """Distinct questions of the culture task that was scored, which its scores are divided by."""
    rows: int | None = None
    """Rows of that task, which the authors' scripts divide by instead."""
    version: str | None = None
    """The version of this package."""
    identity: str | None = None
    """Of the model that was scored, where it is known: see `engine.identity.digest_of`."""

    def found_on(self, task: str) -> bool:
        """Whether neurons were found on this task, or may have been, because the set does not say on
        which."""
        return not self.tasks or task in {name.removesuffix(CONTROL) for name in self.tasks}


class NeuronSet:
    """A set of neurons: rows of (site, layer, neuron, score), with a country in a culture-specific set.

    Rows are sorted by (country,) site, layer, neuron. Duplicates and malformed rows raise `NeuronError`.
    """

    def __init__(self, table: pd.DataFrame, provenance: Provenance | None = None) -> None:
        missing = [column for column in _COLUMNS[:3] if column not in table.columns]
        if missing:
            raise NeuronError(
                f"a set of neurons needs the columns site, layer, neuron; missing: {', '.join(missing)}"
            )
        table = table.copy()
        table["site"] = (
            table["site"]
            .map({name: Site.parse(name).value for name in table["site"].unique()})
            .astype(object)
        )
        for column in ("layer", "neuron"):
            values = np.asarray(pd.to_numeric(table[column], errors="coerce"), dtype=float)
            wrong = (
                ~np.isfinite(values) | (values < 0) | (values != np.floor(values)) | (values > _LARGEST_INDEX)
            )
            if wrong.any():
                row = int(wrong.argmax())
                raise NeuronError(
                    f"column {column!r}, row {row}: {table[column].iloc[row]!r} is not an index"
                )
            table[column] = values.astype(np.int64)
        if "score" not in table.columns:
            table["score"] = np.nan
        table["score"] = table["score"].astype(np.float32)
        keys = ["country"] if "country" in table.columns else []
        shares = [column for column in _REPEATED if column in table.columns]
        table = table.reindex(columns=[*keys, *_COLUMNS, *shares]).astype(dict.fromkeys(shares, np.float32))
        table = table.sort_values(
            [*keys, "site", "layer", "neuron"], key=lambda c: c.map(_SITE_ORDER) if c.name == "site" else c
        )
        repeated = table.duplicated([*keys, "site", "layer", "neuron"])
        if repeated.any():
            row = table[repeated].iloc[0]
            raise NeuronError(f"neuron ({row['site']}, {row['layer']}, {row['neuron']}) occurs twice")
        self.table = table.reset_index(drop=True)
        self.provenance = provenance or Provenance()

    @classmethod
    def from_indices(
        cls, neurons: Iterable[tuple[str | Site, int, int]], provenance: Provenance | None = None
    ) -> NeuronSet:
        """A set of (site, layer, neuron) made by hand, without scores."""
        return cls(pd.DataFrame(list(neurons), columns=["site", "layer", "neuron"]), provenance)

    def __len__(self) -> int:
        return len(self.table)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NeuronSet) and self.keys() == other.keys()

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        counts = ", ".join(f"{site} {n:,}" for site, n in self.counts("site").items()) or "empty"
        known = self.provenance
        filtered = ""
        if known.candidates is not None:
            filtered = (
                f"; of {known.candidates:,} candidates CountryRC removed {known.removed_by_reading or 0:,}"
            )
            filtered += f" and z {known.removed_by_z:,}" if known.removed_by_z is not None else ""
        return f"{known.kind} neurons: {len(self):,} ({counts}{filtered})"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import html

        return f"<p><b>{html.escape(str(self))}</b></p>{self.top(10).to_html(index=False)}"

    def keys(self) -> set[tuple[str, int, int]]:
        """(site, layer, neuron) of every row."""
        return set(zip(self.table["site"], self.table["layer"], self.table["neuron"]))

    @cached_property
    def indices(self) -> dict[tuple[Site, int], np.ndarray]:
        """(site, layer) -> sorted neuron indices, each once even if several countries have it."""
        groups: Any = self.table.groupby(["site", "layer"], sort=False)["neuron"]
        return {(Site(site), int(layer)): np.unique(index.to_numpy()) for (site, layer), index in groups}

    @property
    def columns(self) -> dict[tuple[str, int, int], int]:
        """(site, layer, neuron) -> its row in the table."""
        table = self.table
        return {key: i for i, key in enumerate(zip(table["site"], table["layer"], table["neuron"]))}

    def counts(self, by: str | list[str] = "site") -> pd.Series:
        """Number of neurons by "site", "layer" or "country", or by several of them. Raises `NeuronError` for
        any other column, and for "country" where the set has none."""
        for column in [by] if isinstance(by, str) else by:
            if column not in self.table.columns:
                raise NeuronError(
                    f"no column {column!r} to count by{which(column, self.table.columns.drop('score'))}"
                )
        return pd.Series(self.table.groupby(by, sort=True).size())

    def top(self, count: int = 20) -> pd.DataFrame:
        """The rows with the highest scores."""
        return (
            self.table.sort_values("score", ascending=False, kind="stable").head(count).reset_index(drop=True)
        )

    @property
    def countries(self) -> tuple[str, ...]:
        """Countries of a culture-specific set."""
        return tuple(dict.fromkeys(self.table["country"])) if "country" in self.table.columns else ()

    def for_country(self, country: str) -> NeuronSet:
        """One country's neurons of a culture-specific set. Raises `NeuronError` for any other country."""
        known = dict.fromkeys((*self.countries, *self.provenance.by_country))
        if country not in known:
            ending = which(country, known, "this set has") if known else ": this set has no countries"
            raise NeuronError(f"no neurons of {country!r}{ending}")
        rows = self.table.loc[self.table["country"] == country].drop(columns="country")
        counts = self.provenance.by_country.get(country, {})
        return NeuronSet(
            rows, replace(self.provenance, kind=f"{self.provenance.kind}: {country}", by_country={}, **counts)
        )

    @property
    def hash(self) -> str:
        """Hash of the neurons alone, in any order, 16 hex digits."""
        text = "\n".join(f"{s} {layer} {n}" for s, layer, n in sorted(self.keys()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __or__(self, other: NeuronSet) -> NeuronSet:
        both = pd.concat([self.table, other.table]).drop_duplicates(["site", "layer", "neuron"])
        return NeuronSet(both.reindex(columns=list(_COLUMNS)), self._derived("union"))

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return self._where(other, keep=True, kind="intersection")

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return self._where(other, keep=False, kind="difference")

    def _where(self, other: NeuronSet, keep: bool, kind: str) -> NeuronSet:
        theirs = other.keys()
        mask = [
            ((s, layer, n) in theirs) == keep
            for s, layer, n in zip(self.table["site"], self.table["layer"], self.table["neuron"])
        ]
        return NeuronSet(self.table.loc[mask], self._derived(kind))

    def _derived(self, kind: str) -> Provenance:
        """The provenance of a set made from this one: the model stays, how it was selected does not."""
        own = self.provenance
        return Provenance(
            kind=kind,
            model=own.model,
            revision=own.revision,
            pool=own.pool,
            layers=own.layers,
            clusters=own.clusters,
            rows=own.rows,
            version=own.version,
        )

    def jaccard(self, other: NeuronSet) -> float:
        """Size of the intersection over size of the union; 1 for two empty sets."""
        mine, theirs = self.keys(), other.keys()
        return len(mine & theirs) / len(mine | theirs) if mine or theirs else 1.0

    def save(self, path: str | Path) -> Path:
        """Writes ``.parquet`` or ``.csv`` (with provenance), or the authors' ``.json``.

        The authors' scores are per row of the data set, these are per question; where the numbers of both are
        known, JSON holds the authors'. Its ``dataset_ids`` stay empty, because a set does not keep ids: their
        evaluation then reports one accuracy over all rows, with none called seen or unseen.
        """
        path = Path(path)
        header = json.dumps(asdict(self.provenance), ensure_ascii=False)
        if path.suffix == ".parquet":
            import pyarrow as pa

            return io.write_parquet(
                path, pa.Table.from_pandas(self.table, preserve_index=False), asdict(self.provenance)
            )
        if path.suffix == ".csv":
            return io.write(path, (io.remark(f"# culnig_tl {header}") + io.csv_of(self.table)).encode())
        if path.suffix == ".json":
            return io.write(path, json.dumps(self._to_authors(), indent=1).encode())
        raise NeuronError(f"{path.name}: neurons are saved as .parquet, .csv or .json")

    @classmethod
    def load(cls, path: str | Path) -> NeuronSet:
        """Reads what `save` wrote, also after a spreadsheet has saved it (``.csv``, ``.xlsx``), the authors'
        JSON, and ``.pth`` files of LAPE (`from_lape`).

        Of the authors' JSON, scores are put on this package's scale where its ids of BLEnD's rows say how
        many questions there were. The layers and widths of the paper's models are known by their names.

        Raises `FileError` if the file holds no neurons, or has changed since, and `NeuronError` for a
        ``.pth`` file of anything else.
        """
        path = Path(path)
        if path.suffix in (".pth", ".pt"):
            return cls.from_lape(path)
        if path.suffix not in (".parquet", ".json") and path.suffix.lower() not in SHEETS:
            raise FileError(f"{path.name}: neurons are read from .parquet, .csv, .tsv, .xlsx, .json or .pth")
        with io.reading(path, "neurons"):
            if path.suffix == ".parquet":
                others = ("country", "score", *_REPEATED)
                table, header = io.read_parquet(path, _COLUMNS[:3], others, sealed=False)
                return cls(table, _provenance(header))
            if path.suffix == ".json":
                return cls._from_authors(json.loads(path.read_text(encoding="utf-8")))
            try:
                lines = read_sheet(path)
            except TaskError as error:  # it names the file, as `reading` does
                raise NeuronError(str(error).removeprefix(f"{path}: ")) from error
            return cls._from_sheet(lines)

    @classmethod
    def from_lape(cls, path: str | Path, languages: Sequence[str] = ()) -> NeuronSet:
        """Language neurons as LAPE's scripts save them (Tang et al. 2024, arXiv 2402.16438): a ``.pth`` file
        with a list of layers for each language, each layer a tensor of indices.

        LAPE sets activations after the gate's nonlinearity to 0, which is this package's `mlp.gate` at 0. A
        language stands in the column `country`; for_country("vi") gives its neurons alone.

        Args:
            languages: their names in the file's order; by default a dictionary's keys, or "language 0", ...

        Raises:
            NeuronError: a file that holds anything but lists, dictionaries and tensors (nothing in it is
                run), or another number of languages.
        """
        import pickle

        import torch

        try:
            found: Any = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise NeuronError(f"no such file of neurons: {path}") from None
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
            raise NeuronError(
                f"{path}: not read, because it must hold lists of tensors alone, as torch.save() writes them"
                f" ({type(error).__name__})"
            ) from error
        if isinstance(found, dict):
            languages, found = list(map(str, languages or found)), [*found.values()]
        if not isinstance(found, (list, tuple)) or not found:
            raise NeuronError(f"{path}: no list of layers by language")
        if all(isinstance(layer, torch.Tensor) for layer in found):
            found = [found]  # one language's layers
        names = list(languages) or [f"language {number}" for number in range(len(found))]
        if len(names) != len(found):
            raise NeuronError(f"{path}: {len(found)} languages, and {len(names)} are named")
        rows: list[tuple[str, str, int, int]] = []
        for name, layers in zip(names, found):
            if not isinstance(layers, (list, tuple)):
                raise NeuronError(f"{path}: the layers of {name} are no list")
            for number, layer in enumerate(layers):
                if not isinstance(layer, torch.Tensor) or layer.ndim > 1 or layer.is_complex():
                    raise NeuronError(f"{path}: layer {number} of {name} is no list of indices")
                index = layer.nonzero()[:, 0] if layer.dtype == torch.bool else layer.reshape(-1)
                rows += [(name, Site.MLP_GATE.value, number, neuron) for neuron in index.tolist()]
        counts = {len(layers) for layers in found}
        table = pd.DataFrame(rows, columns=["country", *_COLUMNS[:3]])
        try:
            return cls(table, Provenance(kind="LAPE", layers=counts.pop() if len(counts) == 1 else None))
        except NeuronError as error:
            raise NeuronError(f"{path}: {error}") from None

    @classmethod
    def _from_sheet(cls, lines: list[list[Any]]) -> NeuronSet:
        """A set from a table's lines, the first of which may say where it comes from.

        A spreadsheet cuts that line at its commas into cells, and writes decimal points as commas where it
        separates by semicolons.
        """
        first, header = ",".join(str(cell) for cell in lines[0] if cell is not None), None
        if first.startswith("# culnig_tl "):
            header, lines = first[12:], lines[1:]
            if not lines:
                raise NeuronError("it has no columns")
        names = [str(cell).strip() for cell in lines[0] if cell is not None]
        table = pd.DataFrame([line[: len(names)] for line in lines[1:]], columns=names)
        if "country" in table.columns:
            table["country"] = table["country"].map(io.written_cell)
        for column in ("score", *_REPEATED):
            if column in table.columns:
                table[column] = pd.to_numeric(
                    table[column].map(lambda cell: cell.replace(",", ".") if isinstance(cell, str) else cell)
                )
        return cls(table, _provenance(header))

    def _to_authors(self) -> dict[str, Any]:
        """The set in the form of the authors' scripts, where a neuron without a score has 0."""
        if len(self.countries) > 1:
            raise NeuronError(
                "the authors' JSON holds one country's neurons: "
                f"save .for_country({self.countries[0]!r}) and the others one by one"
            )
        known = self.provenance
        scale = known.clusters / known.rows if known.clusters and known.rows else 1.0
        rows = [
            {
                "module_name": _AUTHORS_NAMES[Site(s)],
                "layer_idx": layer,
                "neuron_idx": n,
                "attribute_score": 0.0 if np.isnan(score) else float(score) * scale,
            }
            for s, layer, n, score in self.table[list(_COLUMNS)].itertuples(index=False)
            if Site(s) in _AUTHORS_NAMES
        ]
        if len(rows) != len(self):
            raise NeuronError("the authors' JSON has no name for mlp.post: save as .parquet or .csv")
        return {"model_name": known.model, "dataset_ids": {}, "top_neurons": rows, _OURS: asdict(known)}

    @classmethod
    def _from_authors(cls, data: dict[str, Any]) -> NeuronSet:
        sites = {name.rpartition(".")[2]: site for site, name in _AUTHORS_NAMES.items()}
        known = _provenance(json.dumps(data[_OURS])) if _OURS in data else _provenance_of_authors(data)
        scale = known.rows / known.clusters if known.clusters and known.rows else 1.0
        rows: list[tuple[str, Any, Any, Any]] = []
        for number, row in enumerate(data["top_neurons"]):
            module, score = str(row["module_name"]).rpartition(".")[2], row.get("attribute_score")
            if module not in sites:
                raise NeuronError(
                    f"row {number}: module {row['module_name']!r} is none of {', '.join(sites)}"
                )
            score = None if score is None else score * scale
            rows.append((sites[module].value, row["layer_idx"], row["neuron_idx"], score))
        return cls(pd.DataFrame(rows, columns=list(_COLUMNS)), known)


_OURS = "culnig_tl"
"""Key of the authors' JSON under which this package keeps the provenance; their scripts pass over it."""
_MCQID = re.compile(r"(\w+-\w+-\d+)_")
"""Id of a BLEnD row, which begins with that of its question."""


def _provenance_of_authors(data: Mapping[str, Any]) -> Provenance:
    """What a file of the authors' scripts says of its neurons."""
    model, ids = data.get("model_name"), dict(data.get("dataset_ids") or {})
    questions = [_MCQID.match(str(row)) for row in ids.get("blend", ())]
    counts: dict[str, Any] = {}
    if questions and all(questions):
        counts = {"rows": len(questions), "clusters": len({found[1] for found in questions if found})}
    short = str(model).rpartition("/")[2].lower()
    shape = next((s for name, s in PAPER_MODELS.items() if name.rpartition("/")[2].lower() == short), None)
    if shape is not None:
        layers, gate, q, kv = shape
        counts |= {"layers": layers, "pool": dict(zip(map(str, SITES), (gate, q, kv, kv)))}
    found_on = dict.fromkeys(map(str, ids), "unknown")  # their ids are no fingerprint
    return Provenance(kind="authors' file", model=model, tasks=found_on, **counts)


_WRITTEN: dict[Any, tuple[str, ...]] = {
    str: ("kind",),
    dict: ("tasks", "thresholds", "pool", "by_country"),
    int | None: ("layers", "candidates", "removed_by_reading", "removed_by_z", "clusters", "rows"),
}
"""Type -> the fields of `Provenance` that have it in a file."""


def _provenance(header: bytes | str | None) -> Provenance:
    """What a file says of its neurons, checked to be of the types that `save` wrote. Raises `TypeError`."""
    if not header:
        return Provenance()
    known = Provenance(**json.loads(header))
    for kind, names in _WRITTEN.items():
        for name in names:
            if not isinstance(value := getattr(known, name), kind):
                raise TypeError(f"{name} of its provenance cannot be of type {type(value).__name__}")
    return known


@dataclass(frozen=True)
class NeuronMeans:
    """The mean output of every neuron over the tokens of a task's prompts."""

    arrays: Mapping[Site, Float[np.ndarray, "layer neuron"]]
    task: str
    fingerprint: str
    """Of the task's questions."""

    @property
    def hash(self) -> str:
        """Hash of the values and of the questions that they are means over, 16 hex digits."""
        digest = hashlib.sha256(self.fingerprint.encode())
        for site, array in self.arrays.items():
            digest.update(f"{site} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]
