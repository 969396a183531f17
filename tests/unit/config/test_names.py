"""Durations, ranges, branches and addresses of repositories."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.config import addresses, durations, ranges
from rollout.config.branches import branch


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h", 3600), ("0s", 0), ("500ms", 0.5), ("1.5s", 1.5), ("2d", 172800)],
)
def test_durations(text, seconds):
    """A duration is a number with its unit."""
    assert durations.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-1s", "1 s", "1s ", "1e3s", "1S", 5, None, True, ["1s"], "1h30m", "\u0663s"]
)
def test_what_is_no_duration(text):
    """A number without a unit, or anything else, is refused."""
    with pytest.raises(ValueError, match="duration"):
        durations.parse(text)


@given(st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000))
def test_a_duration_survives_being_written(seconds):
    """What `text` writes, `parse` reads back as the same time."""
    assert durations.parse(durations.text(seconds)) == seconds


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("web1", ["web1"]),
        ("web[1:3]", ["web1", "web2", "web3"]),
        ("web[098:101]", ["web098", "web099", "web100", "web101"]),
        ("web[:2]", ["web0", "web1", "web2"]),
        ("db-[a:c].x", ["db-a.x", "db-b.x", "db-c.x"]),
        ("r[1:9:4]", ["r1", "r5", "r9"]),
        ("r[1:2]-[a:b]", ["r1-a", "r1-b", "r2-a", "r2-b"]),
    ],
)
def test_ranges_are_ansibles(pattern, names):
    """Ranges stand for the names that Ansible makes of them, in order."""
    assert list(ranges.expand(pattern)) == names
    assert ranges.count(pattern) == len(names)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "a[",
        "a]",
        "a[]",
        "a[1]",
        "a[1:]",
        "a[3:1]",
        "a[c:a]",
        "a[1:c]",
        "a[01:100]",
        "a[1:2:0]",
        "a[1:2:3:4]",
        "[[1:2]]",
        "a[1:99999]",
        "a[1:200]b[1:200]",
        "a[1:9999999999]",
    ],
)
def test_what_is_no_range(pattern):
    """A broken range, or one that stands for too many hosts, is refused before it is made."""
    with pytest.raises(ValueError):
        list(ranges.expand(pattern))


BRANCHES = [
    "main", "release/2.x", "a-b_c", "é", "@x", "x@", "feature/@", "a.b", "-x", "--upload-pack=x", "a..b", "a b", "a~b", "a^b",
    "a:b", "a?b", "a*b", "a[b", "a\\b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "a@{b", "a\x7fb", "a\tb",
    "$(id)", "a;b",
]  # fmt: skip


@pytest.mark.parametrize("name", BRANCHES)
def test_branches_are_those_of_git(name):
    """A branch's name is taken exactly when git takes it."""
    command = ["git", "check-ref-format", "--branch", name]
    allowed = subprocess.run(command, capture_output=True, cwd="/").returncode == 0
    try:
        taken = branch(name) == name
    except ValueError:
        taken = False
    assert taken == allowed


@pytest.mark.parametrize("name", ["", "@", "HEAD", "refs/heads/main", "a\x00b", "a\nb", "x" * 300])
def test_branches_that_would_mislead_are_refused(name):
    """Names that git takes for something else, or nobody can type, are refused."""
    with pytest.raises(ValueError):
        branch(name)


@pytest.mark.parametrize(
    "address",
    [
        "https://git.example.com/a/b.git", "http://10.0.0.1:3000/a/b", "ssh://git@git.example.com:2222/a.git", "git@github.com:a/b.git",
        "host:path", "file:///srv/git/a.git", "git@[::1]:a",
    ],
)  # fmt: skip
def test_addresses_that_git_fetches_stay_as_they_are(address):
    """Addresses with a host are given to git as they are written."""
    assert addresses.repository(address, Path("/base")) == address


def test_paths_are_made_absolute(monkeypatch):
    """A path is taken from the file's folder, and ~ is one's home."""
    monkeypatch.setenv("HOME", "/home/me")
    assert addresses.repository("../shop.git", Path("/base/x")) == "/base/shop.git"
    assert addresses.repository("~/shop.git", Path("/base")) == "/home/me/shop.git"
    assert addresses.repository("/srv/a:b", Path("/base")) == "/srv/a:b"


@pytest.mark.parametrize(
    "address",
    [
        "", "-x", "--upload-pack=id", "ext::sh -c id", "fd::17", "::x", "git://x/y", "ftp://x/y", "https://", "https://x", "https:///y",
        "ssh://-oProxyCommand=id/x", "ssh://-l@host/x", "-host:path", "host:-path", "file://host/x", "https://u:p@h/x", "https://h:99999/x",
        "a\nb", "https://[::1/x",
    ],
)  # fmt: skip
def test_addresses_that_could_run_something_are_refused(address):
    """Transport helpers, options, unknown schemes and passwords never reach git."""
    with pytest.raises(ValueError):
        addresses.repository(address, Path("/base"))


SAME = [
    "https://git.example.com/acme/shop.git", "https://git.example.com/acme/shop/", "http://me@git.example.com:8080/Acme/shop",
    "ssh://git@git.example.com:2222/acme/shop.git", "git@git.example.com:acme/shop.git", "git.example.com:/acme/shop.git/",
]  # fmt: skip


@pytest.mark.parametrize("address", SAME)
def test_spellings_of_one_address_are_equal(address):
    """Scheme, user, port, trailing slash, .git and case do not matter."""
    assert addresses.comparable(address) == "git.example.com/acme/shop"


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.com/acme/shop",
        "https://git.example.com.evil.com/acme/shop",
        "https://git.example.com@evil.com/acme/shop",
        "https://evil.com/git.example.com/acme/shop",
        "/acme/shop",
        "https://git.example.com/acme/shop2",
        "",
        "https://[x",
    ],
)
def test_other_addresses_are_not_equal(address):
    """Another host or path is another repository."""
    assert addresses.comparable(address) != "git.example.com/acme/shop"


def test_local_repositories_compare_by_path():
    """A path and its file address are the same repository."""
    assert (
        addresses.comparable("file:///srv/git/shop.git")
        == addresses.comparable("/srv/git/shop.git/")
        == "/srv/git/shop"
    )
