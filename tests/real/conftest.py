"""Real checkpoints, which are not shipped: GGUF files in the folder that CULNIG_REAL names. Without it, these
tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

FILES = sorted(Path(os.environ["CULNIG_REAL"]).glob("*.gguf")) if "CULNIG_REAL" in os.environ else []


@pytest.fixture(scope="session", params=FILES or [None], ids=lambda path: path.stem if path else "none")
def real(request):
    """`real(dtype)`: a real model in that dtype, through `load_model`, with its weights unpacked."""
    if request.param is None:
        pytest.skip("CULNIG_REAL names no folder with GGUF files of real models")
    pytest.importorskip("gguf", reason="GGUF files are read with the package gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    from culnig_tl import load_model

    where = {"pretrained_model_name_or_path": str(request.param.parent), "gguf_file": request.param.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)

    def model(dtype: str):
        unpacked = GgufConfig(dequantize=True)
        plain = AutoModelForCausalLM.from_pretrained(
            **where, dtype=getattr(torch, dtype), quantization_config=unpacked
        )
        return load_model(hf_model=plain, tokenizer=tokenizer)

    return model
