# ruff: noqa: F401  (the public names of this floor)
from .baking import bake as bake
from .config import TOY_FORGETTING as TOY_FORGETTING
from .config import ForgettingConfig as ForgettingConfig
from .config import TrainingConfig as TrainingConfig
from .forgetting import Forgetting as Forgetting
from .measuring import load_training as load_training
from .measuring import measure_forgetting as measure_forgetting
from .modules import FreezeList as FreezeList
from .modules import ModuleGroup as ModuleGroup
from .modules import ModuleRanking as ModuleRanking
from .modules import choose_modules as choose_modules
from .modules import export_freeze_list as export_freeze_list
from .modules import rank_modules as rank_modules
from .tuning import FineTuned as FineTuned
from .tuning import finetune as finetune
