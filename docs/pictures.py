"""Draws the pictures of README.md from a study's folder.

``python docs/pictures.py runs/toy`` needs ``pip install culnig-tl[export]`` and Chrome or Chromium.
"""

import sys
from pathlib import Path

from culnig_tl import Study, figures

drawn = figures.plots(Study.load(sys.argv[1]))
for name in ("layer_distribution", "drops"):
    figures.save_figure(drawn[name], Path(__file__).parent / f"{name}.png", preset="page")
