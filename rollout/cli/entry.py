"""Where the command begins: what is in a hurry goes before the import of everything else."""

import sys

from rollout.cli import hurry


def run() -> None:
    """The entry point."""
    hurry.stop(sys.argv[1:])
    from rollout.cli import main

    main.run()
