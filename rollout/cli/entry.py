"""Where the command begins: what is in a hurry goes before the import of everything else."""

import sys


def run() -> None:
    """The entry point."""
    if sys.argv[1:2] == ["stop"]:
        from rollout.cli import hurry

        hurry.stop(sys.argv[2:])
    from rollout.cli import main

    main.run()
