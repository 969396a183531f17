"""`rollout demo`: the main job, played for real on this machine."""


def run(*, keep: bool = False) -> int:
    """Play it on standard output; 0 when each of the four commits ended as it must."""
    from rich.console import Console  # noqa: PLC0415  # the demo's other processes need none of this

    from rollout.cli.demo.story import play  # noqa: PLC0415

    return play(Console(), keep=keep)
