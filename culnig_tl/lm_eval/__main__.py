"""``python -m culnig_tl.lm_eval``: the command line of lm-evaluation-harness, with the model ``culnig``."""

import sys

from ..errors import CulnigError
from ..tasks.harness import harness

if __name__ == "__main__":
    try:
        command_line = harness("lm_eval.__main__")
        from . import registered  # noqa: F401

        command_line.cli_evaluate()
    except CulnigError as error:
        sys.exit(f"Error: {error}")
