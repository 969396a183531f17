"""`make faults` runs whatever `make test` leaves to it."""

import ast

from tests.faults.__main__ import FIRST, HERE, ROOT


def test_every_test_that_is_left_to_it_is_in_a_part_of_it():
    """A file with a test that is marked `faults`, or with more of it there, stands in tests/faults or is named as a part."""
    tests = ROOT / "tests"
    left = {
        file
        for file in tests.rglob("test_*.py")
        if any(_leaves(node) for node in ast.walk(ast.parse(file.read_text())))
    }
    parts = {ROOT / part for part in FIRST} | {HERE}
    assert [file for file in sorted(left) if not parts & {file, *file.parents}] == []


def _leaves(node):
    """`pytest.mark.faults`, or `ALL_FAULTS`."""
    name = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
    return name in {"pytest.mark.faults", "ALL_FAULTS"}
