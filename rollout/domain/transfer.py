"""Whether a release goes to a host whole, or as what the host lacks of it."""

SMALL = 1_000_000
"""Bytes of an archive that is sent whole: rebuilding a release costs a host more than these on the wire."""


def may_pay(archive: int) -> bool:
    """Whether it is worth finding out what a host lacks of an archive of this size."""
    return archive >= SMALL


def limit(archive: int) -> int:
    """Bytes that a delta may have: past half of the archive it saves less than it costs."""
    return archive // 2
