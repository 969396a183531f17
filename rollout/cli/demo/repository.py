"""The demo's repository: an app and four commits, three of which are bad in three different ways.

`python -m rollout.cli.demo.repository FOLDER` makes it with its first commit; docker-compose.yml does so.
"""

import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

TEST = """import unittest

from serve import page, total


class Prices(unittest.TestCase):
    def test_a_cart_costs_the_sum_of_its_prices(self) -> None:
        self.assertEqual(total([250, 199]), 449)

    def test_the_first_page_is_there(self) -> None:
        self.assertIn("shop", page("/"))
"""
SUM = "return sum(cents)"
ROUNDED = "return round(sum(cents), -2)"
WHOLE = "return sum(int(price) for price in cents)"
CHECKOUT = '''        return f"to pay: {total([250, 199])} cents\\n"'''
BROKEN_CHECKOUT = """        raise ValueError("the new checkout has no bank account")"""
START = '''    """Refuse to start where it cannot work."""
'''
BROKEN_START = '''    """Refuse to start where it cannot work."""
    number = int(HOST[-2:] or 0) if HOST[-2:].isdigit() else 0
    if number > 6 and number % 2:
        raise SystemExit(f"no cache directory on {HOST}")
'''


@dataclass(frozen=True, slots=True)
class Edit:
    """A commit: what it says and what it changes in serve.py."""

    message: str
    changes: tuple[tuple[str, str], ...]


class Repository:
    """A bare repository to push to, and the folder in which the commits are made."""

    def __init__(self, folder: Path) -> None:
        self.bare = folder / "shop.git"
        self.work = folder / "shop"
        self._program = self.work / "serve.py"
        self.commits: list[str] = []

    def create(self) -> str:
        """Make both, with the first commit, which is good; its hash."""
        _git(self.bare.parent, "init", "-q", "--bare", "--initial-branch=main", str(self.bare))
        _git(self.bare.parent, "init", "-q", "--initial-branch=main", str(self.work))
        _git(self.work, "remote", "add", "origin", str(self.bare))
        self._program.write_text(files("rollout.cli.demo.shop").joinpath("serve.py").read_text())
        (self.work / "test_serve.py").write_text(TEST)
        return self._push("A shop with a checkout")

    def fail_tests(self) -> str:
        """Push a commit that its own tests find wrong; its hash."""
        return self._edit(Edit("Round to whole euros", ((SUM, ROUNDED),)))

    def answer_500(self) -> str:
        """Push a commit that repairs the last one, passes its tests, and breaks the checkout; its hash."""
        return self._edit(
            Edit("Exact prices again, and a faster checkout", ((ROUNDED, WHOLE), (CHECKOUT, BROKEN_CHECKOUT)))
        )

    def break_some_hosts(self) -> str:
        """Push a commit that takes the broken checkout back and does not start on shop07, shop09, shop11; its hash."""
        message = f"Take the faster checkout back\n\nThis reverts commit {self.commits[-1]}."
        return self._edit(Edit(message, ((BROKEN_CHECKOUT, CHECKOUT), (START, BROKEN_START))))

    def _edit(self, edit: Edit) -> str:
        text = self._program.read_text()
        for old, new in edit.changes:
            if text.count(old) != 1:
                raise AssertionError(f"serve.py has no single {old!r}")
            text = text.replace(old, new)
        self._program.write_text(text)
        return self._push(edit.message)

    def _push(self, message: str) -> str:
        _git(self.work, "add", "-A")
        _git(self.work, "commit", "-q", "-m", message)
        _git(self.work, "push", "-q", "origin", "main")
        self.commits.append(_git(self.work, "rev-parse", "HEAD"))
        return self.commits[-1]


def _git(folder: Path, *words: str) -> str:
    """Git without the user's own configuration, hooks and signing."""
    identity = ("-c", "user.name=Demo", "-c", "user.email=demo@example.com", "-c", "commit.gpgsign=false")
    command = ("git", "-c", "core.hooksPath=/dev/null", *identity, *words)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    Repository(Path(sys.argv[1])).create()
