"""How the slots of a hosts worker are shared among apps."""

SPARE = 0.8  # so much of them is used while others may come


def share(slots: int, apps: int, taken: int, *, configured: int) -> int:
    """How many hosts of one app may be under way, while `apps` apps of the `configured` ones (this one too) have some to do, of which the others have `taken`.

    Each has an equal part for certain: of all slots when every app is at work, else of all but a fifth, so that whoever
    comes finds a place, and waits for nobody's host. What the others leave of these it may take too.
    """
    used = int(slots * SPARE)
    return max(1, (used if apps < configured else slots) // apps, used - taken)
