"""``python -m culnig_tl`` is the command ``culnig-tl``; torchrun starts it so, several times."""

import sys

from .cli import main

sys.exit(main())
