"""How the slots of a hosts worker are shared among apps."""

SPARE = 0.8  # so much of them is used while others may come


def share(slots: int, apps: int, taken: int) -> int:
    """How many hosts of one app may be under way, while `apps` apps (this one too) have some to do, of which the others have `taken`.

    Each has an equal part for certain. What the others leave it may take too, but for a fifth, so that whoever comes finds a place.
    """
    return max(1, slots // apps, int(slots * SPARE) - taken)
