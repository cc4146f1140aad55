"""The embedded model: a small Llama trained from scratch on the package's own questions (see README.md)."""

from importlib import resources
from pathlib import Path

FOLDER = Path(str(resources.files("culnig_tl"))) / "toy" / "model"
"""Its checkpoint, in Hugging Face's format."""
