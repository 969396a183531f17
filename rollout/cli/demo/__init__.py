"""`rollout demo`: the main job, played for real on this machine."""


def run(*, keep: bool = False) -> int:
    """Play it on standard output; 0 when each of the four commits ended as it must."""
    from rich.console import Console

    from rollout.cli.demo.story import play

    return play(Console(), keep=keep)
