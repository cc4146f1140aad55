"""culnig_tl: finds the neurons of a language model that carry its knowledge of cultures, switches them off
inside real benchmarks, and shows where they sit. CULNIG (ICLR 2026, arXiv 2510.08284) on TransformerLens.

The public names are listed once, in ``__init__.pyi``; each is imported when it is first used, so that
``culnig-tl --help`` need not wait for torch.
"""

import lazy_loader

from .version import __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
