"""Draws the pictures of README.md and docs/findings.md from a study: its folder, or one of the package's own.

``python docs/pictures.py runs/toy`` and ``python docs/pictures.py smollm2-135m-instruct smollm2_`` (what the
files' names begin with) need ``pip install culnig-tl[export]`` and Chrome or Chromium.
"""

import sys
from pathlib import Path

from culnig_tl import figures, load_study

source, beginning = [*sys.argv[1:], ""][:2]
study = load_study(source)
drawn = {
    "layer_distribution": figures.layer_distribution(study.neurons["culture-general"]),
    "drops": figures.plots(study)["drops"],
}
for name, figure in drawn.items():
    figures.save_figure(figure, Path(__file__).parent / f"{beginning}{name}.png", preset="page")
