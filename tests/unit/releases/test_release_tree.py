"""What may be in a release, and the listing that its digest is of."""

import hashlib
import os
import tarfile

import pytest

from rollout.errors import ReleaseError
from rollout.releases import archive, tree


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def pick(root, *include):
    return tree.pick(os.fsencode(root), include or (".",))


def names(picked):
    return [os.fsdecode(file.path) for file in picked.files]


def write(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)


def test_everything_but_git_is_picked_in_the_order_of_bytes(root):
    """`.` is the whole tree without .git at its top; upper case comes before lower case."""
    write(root, "b", "B", "a/z", "a.b", ".env", ".git/config", "vendor/.git/config", "é")
    assert names(pick(root)) == [".env", "B", "a.b", "a/z", "b", "vendor/.git/config", "é"]


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (("a",), ["a/b/c", "a/d"]),
        (("a/", "./x.txt"), ["a/b/c", "a/d", "x.txt"]),
        (("*.txt",), ["x.txt", "y.txt"]),
        (("**/c",), ["a/b/c"]),
        (("a", "a/b"), ["a/b/c", "a/d"]),
        (("[x].txt",), ["[x].txt"]),
    ],
)
def test_include_names_paths_or_patterns(root, include, expected):
    """A path that is there means itself; otherwise it is a pattern; nothing is packed twice."""
    write(root, "a/b/c", "a/d", "x.txt", "y.txt")
    if include == ("[x].txt",):
        write(root, "[x].txt")
    assert names(pick(root, *include)) == expected


@pytest.mark.parametrize("include", ["/etc", "..", "../x", "a/../../x"])
def test_include_outside_of_the_tree_is_refused(root, include):
    """Nothing outside of the checkout can be shipped."""
    write(root, "a/b")
    with pytest.raises(ReleaseError, match="outside"):
        pick(root, include)


def test_include_through_a_link_is_refused(root, tmp_path):
    """A link must not bring in what it points to."""
    write(tmp_path, "elsewhere/secret")
    (root / "d").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReleaseError, match="goes through the link"):
        pick(root, "d/secret")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("l", "a"),
        ("l", "missing"),
        ("d/l", "../a"),
        ("d/e/l", "../../../../shared/x"),
        ("l", "../../shared"),
        ("l", "./a"),
        ("d/l", "../../../shared/x/y"),
    ],
)
def test_links_inside_and_to_shared_are_kept(root, path, target):
    """Links within the release, dangling ones too, and into the app's shared folder."""
    write(root, "a")
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(target)
    assert [(link.path, link.target) for link in pick(root).links] == [(path.encode(), target.encode())]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("l", "/etc/passwd"),
        ("l", ".."),
        ("l", "../shared"),
        ("l", "../../sharedness"),
        ("l", "../../../shared"),
        ("d/l", "../../shared/x"),
        ("l", "a/../../x"),
        ("l", "../../shared/../.rollout/journal"),
        ("l", "a\nb"),
    ],
)
def test_links_that_leave_the_release_are_refused(root, path, target):
    """Whatever a link's way out of the release is, it does not get packed."""
    write(root, "a")
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).symlink_to(target)
    with pytest.raises(ReleaseError):
        pick(root)


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x1b[31m", "a\\b", "a\x7f"])
def test_names_that_hosts_would_list_otherwise_are_refused(root, name):
    """sha256sum escapes them, so the host's digest could not be ours."""
    write(root, name)
    with pytest.raises(ReleaseError, match="control characters or backslashes"):
        pick(root)


@pytest.mark.needs("root")
def test_file_of_somebody_else_is_refused(root):
    """What root could read and the build could not (a hard link to it, where the kernel allows that) is not packed."""
    write(root, "own", "linked")
    for name in (".", "own"):
        os.chown(root / name, 60_900, 60_900)
    with pytest.raises(ReleaseError, match="linked belongs to user 0"):
        pick(root)


def test_size_and_number_are_bounded(root, monkeypatch):
    """A release past the bounds is refused, and the message says them."""
    write(root, "a", "b", "c")
    monkeypatch.setattr(tree, "MAX_FILES", 2)
    with pytest.raises(ReleaseError, match="too big: more than 2 entries"):
        pick(root)


def test_listing_is_the_documented_one(root, tmp_path):
    """docs/host.md, line by line; the archive's members have the listed bytes."""
    write(root, "b", "a b", "bin/run")
    (root / "bin/run").chmod(0o700)
    (root / "l").symlink_to("b")
    picked = pick(root)
    digest = archive.pack(os.fsencode(root), picked, tmp_path / "r.tar.gz")
    sha = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("b", "a b", "bin/run")}
    listing = f"files\n{sha['a b']}  ./a b\n{sha['b']}  ./b\nexecutables\n{sha['bin/run']}  ./bin/run\nlinks\n./l -> b\n"
    assert digest == hashlib.sha256(listing.encode()).hexdigest()
    with tarfile.open(tmp_path / "r.tar.gz") as packed:
        assert packed.extractfile("a b").read() == b"a b"
        assert packed.getmember("bin/run").mode == 0o755
