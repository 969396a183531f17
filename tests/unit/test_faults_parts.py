"""`make faults` runs whatever `make test` leaves to it."""

import ast

from tests.faults.__main__ import FIRST, HERE, ROOT


def test_every_test_that_is_left_to_it_is_in_a_part_of_it():
    """A file with a test that is marked `faults`, or with more of it there, stands in tests/faults or is named as a part."""
    tests = ROOT / "tests"
    longer = {_module(file) for file in tests.glob("support/**/*.py") if _leaves(file)}
    assert longer == {"tests.support.walks"}
    left = {file for file in tests.rglob("test_*.py") if _leaves(file) or longer & _imported(file)}
    parts = {ROOT / part for part in FIRST} | {HERE}
    assert [file for file in sorted(left) if not parts & {file, *file.parents}] == []


def _leaves(file):
    """It has `pytest.mark.faults`, or `ALL_FAULTS`."""
    words = {"pytest.mark.faults", "ALL_FAULTS"}
    if not any(word in file.read_text() for word in words):  # most files, of which each name would cost
        return False
    names = [ast.unparse(node) for node in _nodes(file) if isinstance(node, ast.Attribute | ast.Name)]
    return not words.isdisjoint(names)


def _imported(file):
    """The modules that it imports, by `from … import …`."""
    return {
        name
        for node in _nodes(file)
        if isinstance(node, ast.ImportFrom)
        for name in (node.module, *(f"{node.module}.{one.name}" for one in node.names))
    }


def _module(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def _nodes(file):
    return ast.walk(ast.parse(file.read_text()))
