"""Where the command begins: what is in a hurry goes before the import of everything else."""

import sys

from rollout.cli.words import readable


def run() -> None:
    """The entry point."""
    sys.argv[1:] = map(readable, sys.argv[1:])
    if sys.argv[1:2] == ["stop"]:
        from rollout.cli import hurry

        hurry.stop(sys.argv[2:])
    from rollout.cli import main

    main.run()
