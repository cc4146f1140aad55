"""Fixtures: the folders of real rows, and a cache of `datasets` for each run of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real rows beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def hub(shared: Path) -> Path:
    """A mirror of the Hub with real rows."""
    return shared / "hub"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """`datasets` builds into a folder of its own, and no mirror is set from outside."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")
    monkeypatch.delenv("CULNIG_DATA_DIR", raising=False)
