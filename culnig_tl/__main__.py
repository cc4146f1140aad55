"""``python -m culnig_tl`` is the command ``culnig-tl``; torchrun starts it so, several times."""

from .cli import main
from .engine.world import asked_for, hold_back, prepare_console

try:
    if asked_for() > 1:
        prepare_console()
    main()
except SystemExit as end:
    if end.code:
        hold_back()
    raise
