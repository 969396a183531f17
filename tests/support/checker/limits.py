"""I13, and I14 and I15 as far as the caller measured them."""

from collections.abc import Iterator

from tests.support.checker.history import History, Violation


def no_secrets(history: History) -> Iterator[Violation]:
    """I13: no secret in any row, deed or text."""
    for secret in history.secrets:
        for place, content in _texts(history):
            if secret in content:
                yield Violation("I13", place, "holds a secret")


def bounded(history: History) -> Iterator[Violation]:
    """I14 and I15: what was measured is within what the caller allows."""
    for one in history.measured:
        if one.value > one.most:
            yield Violation(one.invariant, one.name, f"{one.value:g}, at most {one.most:g}")


def _texts(history: History) -> Iterator[tuple[str, str]]:
    for table, rows in history.tables.items():
        for row in rows:
            yield f"{table} {row.get('id', row.get('name', ''))}".strip(), "\n".join(map(str, row.values()))
    for number, deed in enumerate(history.deeds):
        yield f"deed {number}", f"{deed.arguments} {deed.answer}"
    for name, disk in history.disks.items():
        yield f"journal of {name}", "\n".join(map(str, disk.records))
    yield from history.texts.items()
