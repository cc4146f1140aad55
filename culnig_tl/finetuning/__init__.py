"""Fine-tuning: which modules hold culture neurons, training some of them, and what that costs in culture.

config      TrainingConfig and ForgettingConfig: also the command line's options
modules     modules ranked by their culture neurons, chosen, and named for other trainers
tuning      training chosen modules, and the checkpoint that comes of it; `training` is the loop
forgetting  what training cost; `measuring` measures it
baking      a checkpoint with neurons suppressed
weights     a checkpoint's files: found, read, rewritten
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
