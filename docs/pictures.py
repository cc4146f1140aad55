"""Makes the pictures of README.md from a study's folder: ``python docs/pictures.py runs/toy``. Needs ``pip install culnig-tl[export]``."""

import sys
from pathlib import Path

from culnig_tl import Study, figures

study = Study.load(sys.argv[1])
here = Path(__file__).parent
figures.save_figure(
    figures.layer_distribution(study.neurons["culture-general"]), here / "layer_distribution.png", width=900
)
figures.save_figure(study.figures()["accuracy"], here / "accuracy.png", width=900)
