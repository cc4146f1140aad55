"""``python -m culnig_tl`` is the command ``culnig-tl``."""

from .cli import main

main()
