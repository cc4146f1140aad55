"""Where rows come from: a local mirror or the Hub, built by `datasets` or read from raw files."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import TaskError
from ..hub import cache_where_offline
from .rows import Rows, read_file, short

log = logging.getLogger(__name__)

DATA_DIR = "CULNIG_DATA_DIR"
"""Environment variable that names a local mirror of the Hub's data sets."""


@dataclass(frozen=True)
class Source:
    """Where a data set is on the Hub, and in a mirror of it."""

    hub_id: str
    config: str | None
    split: str
    files: tuple[str, ...]
    """Patterns of its raw files, in order of preference; read where `datasets` cannot build the data set."""
    moved_to: tuple[str, ...] = ()
    """Later Hub ids of the same data set."""
    raw: bool = False
    """Read the raw files: some versions of `datasets` fail on them, or build far more than is needed."""

    @property
    def ids(self) -> tuple[str, ...]:
        return (self.hub_id, *self.moved_to)


def data_folder(data_dir: str | Path | None = None) -> Path | None:
    """The mirror: `data_dir`, else what ``CULNIG_DATA_DIR`` names, else None (the Hub).

    Raises `TaskError` if that folder does not exist.
    """
    said = data_dir if data_dir is not None else os.environ.get(DATA_DIR) or None
    if said is None:
        return None
    folder = Path(said).expanduser()
    if not folder.is_dir():
        raise TaskError(f"data folder {folder} does not exist; it holds the Hub's data sets as <org>/<name>/")
    return folder


def find(source: Source, data_dir: str | Path | None = None) -> Path | None:
    """The data set's folder in the mirror, None without a mirror. Raises `TaskError` if it is not there."""
    folder = data_folder(data_dir)
    if folder is None:
        return None
    for hub_id in source.ids:
        if (folder / hub_id).is_dir():
            return folder / hub_id
    raise TaskError(
        f"data folder {folder} has no {source.hub_id}; put the data set there, "
        "or leave the data folder out to use the Hub"
    )


def read(source: Source, data_dir: str | Path | None = None) -> Rows:
    """The rows of a data set, built by `datasets`, or from its raw files where that fails.

    Raises `TaskError` that says what is missing, or which file is wrong and how.
    """
    folder = find(source, data_dir)
    if folder is None:
        with cache_where_offline():
            return _read_hub(source)
    reason: Exception | None = None
    if not source.raw:
        try:
            with _without_bars():
                return _build(str(folder), source, _cache(folder))
        except Exception as error:  # datasets raises errors of any kind; the raw files decide
            log.debug("datasets cannot build %s: %r", folder, error)
            reason = error
    return _read_raw(folder, source, reason, origin=str(folder))


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bars of `datasets` for what is read from a disk in a moment."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _cache(folder: Path) -> str:
    """Where `datasets` keeps what it builds from a folder in its present state.

    By itself it tells local folders apart only by their last name, and would return one mirror's rows for
    another's.
    """
    from datasets import config

    digest = hashlib.sha256(str(folder.resolve()).encode())
    for file in sorted(folder.rglob("*")):
        stat = file.stat()
        digest.update(
            f"{file.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}".encode(errors="surrogateescape")
        )
    return str(Path(config.HF_DATASETS_CACHE) / "culnig_tl" / digest.hexdigest()[:16])


def _build(path: str, source: Source, cache_dir: str | None = None) -> Rows:
    import datasets

    builder = datasets.load_dataset_builder(path, source.config, cache_dir=cache_dir)
    builder.download_and_prepare()
    frame = builder.as_dataset(split=source.split).to_pandas()  # type: ignore[union-attr]
    files = [
        re.sub("@[0-9a-f]{40}", "", str(file))
        for file in (builder.config.data_files or {}).get(source.split, [])
    ]
    return Rows(frame, files[0] if len(files) == 1 else path, origin=path)  # type: ignore[arg-type]


def _read_hub(source: Source) -> Rows:
    from datasets.exceptions import DatasetNotFoundError

    failed: Exception | None = None
    for hub_id in source.ids:
        reason: Exception | None = None
        if not source.raw:
            try:
                return _build(hub_id, source)
            except (ConnectionError, DatasetNotFoundError) as error:
                failed = failed or error
                continue
            except Exception as error:  # as in read()
                log.warning("datasets cannot build %s (%s); reading its files", hub_id, short(error))
                reason = error
        try:
            folder = _download(hub_id, source)
        except Exception as error:  # the Hub's client, too, raises errors of many kinds
            failed = error
            continue
        return _read_raw(folder, source, reason, origin=hub_id)
    raise TaskError(
        f"cannot read {source.hub_id} from the Hub ({short(failed)}); "
        f"for a local copy give a data folder (data_dir, --data-dir or {DATA_DIR}) "
        f"that holds {source.hub_id}/"
    ) from failed


def _download(hub_id: str, source: Source) -> Path:
    import huggingface_hub

    folder = Path()
    for pattern in source.files:
        folder = Path(
            huggingface_hub.snapshot_download(hub_id, repo_type="dataset", allow_patterns=[pattern])
        )
        if any(folder.glob(pattern)):
            break
    return folder


def _read_raw(folder: Path, source: Source, reason: Exception | None, *, origin: str) -> Rows:
    for pattern in source.files:
        if found := sorted(folder.glob(pattern)):
            import pandas as pd

            parts = [read_file(file) for file in found]
            frame = pd.concat([part.frame for part in parts], ignore_index=True)
            return Rows(frame, str(found[0]) if len(found) == 1 else str(folder), origin=origin)
    what = f"{source.config or source.hub_id}, split {source.split!r}" + (
        f" ({short(reason)})" if reason else ""
    )
    raise TaskError(f"{folder} holds no readable {what}, and no {source.files[0]}") from reason
