"""Real models, which are not shipped: the GGUF files in the folder that CULNIG_REAL names. Without it, these
tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FILES = sorted(Path(os.environ["CULNIG_REAL"]).glob("*.gguf")) if "CULNIG_REAL" in os.environ else []


@pytest.fixture(scope="session", params=FILES or [None], ids=lambda path: path.stem if path else "none")
def real(request):
    """`real(dtype)`: a real model in that dtype."""
    if request.param is None:
        pytest.skip("CULNIG_REAL names no folder with GGUF files of real models")
    pytest.importorskip("gguf", reason="GGUF files are read with the package gguf")
    from culnig_tl import load_model

    return lambda dtype: load_model(request.param, dtype=dtype, device="cpu")
