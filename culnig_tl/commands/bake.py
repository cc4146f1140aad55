"""`culnig-tl bake`: a model with neurons suppressed, as an ordinary checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import out


def bake(
    model: Annotated[
        str, typer.Argument(help='Folder with a Hugging Face checkpoint in safetensors, or "toy".')
    ],
    neurons: Annotated[
        Path, typer.Option("--neurons", help="Neurons to suppress: .parquet, .csv, or the authors' .json.")
    ],
    output_dir: Annotated[Path, typer.Option("--output-dir", help="New folder of the checkpoint.")],
) -> None:
    """Writes the suppressed model, so that any other tool can evaluate it."""
    from ..data.neurons import NeuronSet
    from ..finetuning.baking import bake as write

    chosen = NeuronSet.load(neurons)
    folder = write(model, chosen, output_dir)
    out.print(f"{chosen}\nThe suppressed model: {folder}", soft_wrap=True, highlight=False)
