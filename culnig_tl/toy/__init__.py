"""The embedded model: a small Llama trained from scratch on the package's own questions. See README.md beside this file."""

from importlib import resources
from pathlib import Path

FOLDER = Path(str(resources.files("culnig_tl"))) / "toy" / "model"
"""Its checkpoint, in the format of Hugging Face."""
