"""Makes the pictures of README.md from a study's folder: ``python docs/pictures.py runs/toy``. Needs ``pip install culnig-tl[export]``."""

import sys
from pathlib import Path

from culnig_tl import Study, figures

study = Study.load(sys.argv[1])
drawn = study.figures()
for name in ("layer_distribution", "accuracy"):
    figures.save_figure(drawn[name], Path(__file__).parent / f"{name}.png")
