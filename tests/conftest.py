"""Everything runs on one thread, without the network, with shapes checked at run time."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TQDM_DISABLE"] = "1"

import pytest
import torch
from jaxtyping import install_import_hook

from . import typechecker

install_import_hook("culnig_tl", f"{typechecker.__name__}.check")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """`checkpoints(family, **options)`: the folder of a small random checkpoint, written once a session."""
    from . import families

    root = tmp_path_factory.mktemp("checkpoints")
    made = {}

    def folder(family: str, **options):
        key = (family, *sorted(options.items(), key=str))
        if key not in made:
            made[key] = families.save(root / f"{family}-{len(made)}", family, **options)
        return made[key]

    return folder


@pytest.fixture(scope="session")
def loaded(checkpoints):
    """`loaded(family, dtype="float32", **options)`: a small random model through `load_model`, loaded once a
    session."""
    from culnig_tl import load_model

    made = {}

    def model(family: str, *, dtype: str = "float32", **options):
        key = (family, dtype, *sorted(options.items(), key=str))
        if key not in made:
            made[key] = load_model(checkpoints(family, **options), dtype=dtype, device="cpu")
        return made[key]

    return model


@pytest.fixture(scope="session")
def task():
    """Six questions of different lengths about three countries."""
    from . import families

    return families.questions(6)
