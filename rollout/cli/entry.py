"""Where the command begins: what is in a hurry goes before the import of everything else."""

import sys


def run() -> None:
    """The entry point."""
    words = sys.argv[1:]
    if words[:1] == ["stop"]:
        from rollout.cli import hurry

        hurry.stop(words)
    from rollout.cli import main

    main.run()
