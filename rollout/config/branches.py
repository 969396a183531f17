"""Names of branches, by the rules of `git check-ref-format --branch`."""

import re

REFUSED = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
EXPECTED = "the name of a branch, as git allows it"


def branch(given: str) -> str:
    """The name itself; ValueError when git would refuse it or could take it for an option."""
    parts = given.split("/")
    if (
        REFUSED.search(given)
        or given in {"", "@", "HEAD"}
        or given.startswith(("-", "refs/"))
        or given.endswith(".")
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
        or len(given.encode()) > 200
    ):
        raise ValueError(EXPECTED)
    return given
