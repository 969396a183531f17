"""From a pushed commit to tested, built, packed bytes, with a real git, sh and tar."""

import errno
import hashlib
import os
import re
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from rollout.domain.model import Release
from rollout.errors import LeaseLost, NotFound
from rollout.releases import workshop as workshops
from rollout.releases.workshop import GitWorkshop
from tests.support.sources import Source, an_app

pytestmark = pytest.mark.needs("git")

# The digest of docs/host.md, as a shell makes it.
LISTING = r"""
set -e; export LC_ALL=C
echo files; find . -type f ! -perm -100 -print0 | sort -z | xargs -0 -r sha256sum
echo executables; find . -type f -perm -100 -print0 | sort -z | xargs -0 -r sha256sum
echo links; find . -type l | sort | while IFS= read -r link; do printf '%s -> %s\n' "$link" "$(readlink "$link")"; done
"""


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / "source")


@pytest.fixture
def workshop(tmp_path):
    workshop = GitWorkshop(tmp_path / "state")
    yield workshop
    assert [path for path in (tmp_path / "state/work").glob("job-*") if path.is_dir()] == []


def outcome(workshop, source, config, commit=None):
    workshop.fetch("shop", config)
    return workshop.run_tests("shop", config, commit or source.git("rev-parse", "HEAD"), go_on=lambda: True)


def built(workshop, source, config):
    workshop.fetch("shop", config)
    return workshop.build("shop", config, source.git("rev-parse", "HEAD"))


def unpacked(release: Release, folder):
    folder.mkdir()
    subprocess.run(["tar", "-xzf", release.archive, "-C", str(folder)], check=True)
    return folder


def shell_digest(folder):
    listing = subprocess.run(["sh", "-c", LISTING], cwd=folder, capture_output=True, check=True).stdout
    return hashlib.sha256(listing).hexdigest()


def test_tests_run_in_a_clean_checkout_of_their_commit(source, workshop):
    """The command sees that commit's files, not the branch's newest."""
    first = source.commit({"a": "one"})
    source.commit({"a": "two", "b": ""})
    result = outcome(workshop, source, an_app(source.path, tests='cat a; ls; echo "$ROLLOUT_COMMIT"'), first)
    assert result.passed
    assert re.fullmatch(r"tests passed in \d+ s", result.reason)
    assert result.output == f"onea\n{first}\n"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("exit 2", "exit status 2"),
        ("no-such-program", "the test command is not there (exit status 127): "),
        ("kill -9 $$", "killed by signal 9 (Killed)"),
        ("echo FAILED; exit 0", "tests passed in "),
    ],
)
def test_reason_is_one_line_about_the_exit(source, workshop, command, reason):
    """The exit status alone decides, and the reason says which it was."""
    source.commit({"a": ""})
    result = outcome(workshop, source, an_app(source.path, tests=command))
    assert result.reason.startswith(reason)
    assert "\n" not in result.reason
    assert result.passed is (reason == "tests passed in ")


def test_late_tests_are_killed_and_say_so(source, workshop):
    """Tests that run for ever end at their limit."""
    source.commit({"a": ""})
    result = outcome(workshop, source, an_app(source.path, tests="echo begun; sleep 60", timeout="500ms"))
    assert not result.passed
    assert result.reason == "killed after 0.5 s"
    assert result.output == "begun\n"


def test_no_test_command_passes_and_says_so(source, workshop, tmp_path):
    """An app without tests is possible; nothing is run."""
    source.commit({"a": ""})
    config = an_app(source.path)
    config = config.model_copy(update={"tests": config.tests.model_copy(update={"command": ""})})
    (tmp_path / "state/work").mkdir(parents=True)
    result = outcome(workshop, source, config)
    assert result.passed
    assert "tests.command is empty" in result.reason


def test_unknown_commit_is_not_found(source, workshop, tmp_path):
    """Tests of a commit that the mirror does not have are not a failure of the commit."""
    source.commit()
    (tmp_path / "state/work").mkdir(parents=True)
    config = an_app(source.path)
    workshop.fetch("shop", config)
    with pytest.raises(NotFound):
        workshop.run_tests("shop", config, "0" * 40, go_on=lambda: True)


def test_lost_lease_leaves_no_result_and_no_folder(source, workshop):
    """A worker that lost its commit has nothing to say about it."""
    source.commit()
    config = an_app(source.path, tests="sleep 60")
    workshop.fetch("shop", config)
    with pytest.raises(LeaseLost):
        workshop.run_tests("shop", config, "main", go_on=lambda: False)


@pytest.fixture
def odd_release(source, workshop):
    """A release with every kind of name that is allowed."""
    names = [
        "a",
        "a b",
        "A",
        "é",
        "-rf",
        "a.b/c",
        "ab/c",
        ".hidden",
        "q'\"",
        "$(id)",
        "*",
        "# x",
        " lead",
        "trail ",
    ]
    source.commit(
        {**{name: name for name in names}, "bin/run.sh": "#!/bin/sh\n", "bin/-x.sh": "", "b\udcff": "raw"}
    )
    for name, target in {
        "link": "bin/run.sh", "link (copy)": "a b", "link-": "é", "bin/up": "../a", "data": "../../shared/data", "dir link": "a.b",
    }.items():  # fmt: skip
        (source.path / name).symlink_to(target)
    source.commit()
    release, told = built(workshop, source, an_app(source.path))
    assert told.passed
    return release


def test_release_has_the_digest_that_a_shell_computes(odd_release, tmp_path):
    """find, sort and sha256sum on the unpacked archive say what the build said, for odd names too."""
    folder = unpacked(odd_release, tmp_path / "host")
    assert shell_digest(folder) == odd_release.digest
    assert (folder / "data").readlink() == Path("../../shared/data")
    assert not (folder / ".git").exists()


@pytest.mark.parametrize(
    "shell", [["sh"], pytest.param(["busybox", "sh"], marks=pytest.mark.needs("busybox"))]
)
def test_host_program_takes_the_release_for_what_it_is(odd_release, tmp_path, shell):
    """host.sh unpacks the archive, computes the same digest, and has the release prepared."""
    program = Path(workshops.__file__).parents[1] / "fleet" / "host.sh"
    installed = tmp_path / "srv/.rollout/bin" / hashlib.sha256(program.read_bytes()).hexdigest()
    installed.parent.mkdir(parents=True)
    installed.write_bytes(program.read_bytes())
    arguments = {
        "epoch": 1, "op": 1, "commit": odd_release.commit, "digest": odd_release.digest, "size": odd_release.size, "keep": 2,
    }  # fmt: skip
    told = subprocess.run(
        [*shell, str(installed), "prepare"],
        input="".join(f"{key}={value}\n" for key, value in arguments.items()).encode()
        + b"\n"
        + Path(odd_release.archive).read_bytes(),
        capture_output=True,
        timeout=60,
    )
    assert told.stdout.splitlines()[-1] == b"end=0", told
    assert shell_digest(tmp_path / "srv/releases" / odd_release.commit) == odd_release.digest


def test_archive_is_the_same_for_the_same_contents(source, tmp_path):
    """Two machines that build the same commit make the same bytes."""
    source.commit({"a": "1", "run.sh": "#!/bin/sh\n"})
    config = an_app(source.path, build="umask 077; mkdir out; echo x > out/y; touch -d 2001-01-01 out/y")
    made = []
    for name in ("one", "two"):
        workshop = GitWorkshop(tmp_path / name)
        release, _ = built(workshop, source, config)
        made.append((release.digest, Path(release.archive).read_bytes()))
    assert made[0] == made[1]
    with tarfile.open(release.archive) as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in members} == {(0, 0, 0, "")}
    assert {m.mode for m in members if m.isfile()} == {0o644, 0o755}


def test_build_runs_in_a_checkout_that_the_tests_did_not_touch(source, workshop):
    """What tests leave behind is not in the release."""
    source.commit({"a": ""})
    config = an_app(source.path, tests="touch left", build="test ! -e left && echo made > made")
    assert outcome(workshop, source, config).passed
    release, told = built(workshop, source, config)
    assert told.reason.startswith("build passed")
    with tarfile.open(release.archive) as archive:
        assert sorted(archive.getnames()) == ["a", "made"]


def test_include_picks_what_is_shipped(source, workshop):
    """Only what include names is in the release, at its own path."""
    source.commit({"src/a": "", "conf/x.yml": "", "conf/y.txt": ""})
    config = an_app(source.path, build="mkdir dist; echo 1 > dist/app", include=("dist", "conf/*.yml"))
    release, _ = built(workshop, source, config)
    with tarfile.open(release.archive) as archive:
        assert archive.getnames() == ["conf", "dist", "conf/x.yml", "dist/app"]


def test_failing_build_gives_no_release_but_its_output(source, workshop):
    """A build that fails says how, with what it printed."""
    source.commit({"a": ""})
    release, told = built(workshop, source, an_app(source.path, build="echo no luck; exit 4"))
    assert release is None
    assert told.reason == "exit status 4"
    assert told.output == "no luck\n"


@pytest.mark.parametrize(
    ("build", "said"),
    [
        ("mkfifo pipe", "pipe is a device, socket or pipe"),
        ("ln -s /etc/passwd out", "is absolute"),
        ("ln -s ../../etc out", "leaves the release"),
        ("ln -s ../../sharedx out", "leaves the release"),
        ("mkdir d; ln -s ../../shared d/out", "leaves the release"),
        ("ln -s . d; ln -s d/../x out", "`..` in its middle"),
        ("ln -s ../../shared/../x out", "`..` in its middle"),
        ("touch \"$(printf 'a\\nb')\"", "control characters"),
        ("touch 'a\\b'", "backslashes"),
        ("rm -r a", "would be empty"),
        ("cd ..; rm -r tree; ln -s /etc tree", "replaced the folder"),
    ],
)
def test_what_cannot_be_a_release_is_refused_by_name(source, workshop, build, said):
    """Links that lead out, devices and names that a host could not list alike are refused."""
    source.commit({"a": ""})
    release, told = built(workshop, source, an_app(source.path, build=build))
    assert release is None
    assert not told.passed
    assert said in told.reason


def test_include_that_is_not_there_is_refused(source, workshop):
    """A misspelt include does not ship half of a release."""
    source.commit({"a": ""})
    _, told = built(workshop, source, an_app(source.path, include=("a", "dits")))
    assert "'dits' is not in the tree" in told.reason


def test_same_commit_again_is_the_same_release_without_a_build(source, workshop):
    """A release is built once; a second call returns the first one's bytes."""
    source.commit({"a": ""})
    config = an_app(source.path, build="date +%N > stamp")
    first, _ = built(workshop, source, config)
    again, told = built(workshop, source, config)
    assert again == first
    assert told.reason == "built before"


def test_damaged_archive_is_built_again(source, workshop):
    """An archive whose bytes changed is not used."""
    source.commit({"a": ""})
    config = an_app(source.path)
    first, _ = built(workshop, source, config)
    Path(first.archive).write_bytes(Path(first.archive).read_bytes() + b"x")
    again, told = built(workshop, source, config)
    assert again == first
    assert told.reason.startswith("packed")


def test_only_the_newest_archives_stay(source, tmp_path):
    """The shelf keeps its number of archives, the newest by use."""
    workshop = GitWorkshop(tmp_path / "state", keep=2)
    config = an_app(source.path)
    shas = []
    for number in range(3):
        shas.append(source.commit({"a": str(number)}))
        release, _ = built(workshop, source, config)
        os.utime(release.archive, (number, number))
    kept = sorted(path.name for path in (tmp_path / "state/releases/shop").glob("*.tar.gz"))
    assert kept == sorted(f"{sha}.tar.gz" for sha in shas[1:])


def test_what_is_needed_stays_and_what_is_gone_is_known(source, tmp_path):
    """However many newer archives come: what runs and what is on its way has its own; and one that was asked for is new again."""
    workshop = GitWorkshop(tmp_path / "state", keep=2)
    config, shas = an_app(source.path), []
    for number in range(5):
        shas.append(source.commit({"a": str(number)}))
        if number == 3:
            assert workshop.has_archive("shop", shas[1])
        workshop.fetch("shop", config)
        release, _ = workshop.build("shop", config, shas[-1], {shas[0]})
        if number < 3:
            os.utime(release.archive, (number, number))
    assert [workshop.has_archive("shop", sha) for sha in shas] == [True, False, False, True, True]


@pytest.mark.parametrize("trouble", [errno.EACCES, errno.EROFS, errno.ESTALE])
def test_an_archive_whose_time_cannot_be_written_is_there_all_the_same(
    source, workshop, monkeypatch, trouble
):
    """A read-only or foreign shelf stops no planning: only what is missing is missing."""
    source.commit({"a": ""})
    release, _ = built(workshop, source, an_app(source.path))

    def refused(*_):
        raise OSError(trouble, os.strerror(trouble))

    monkeypatch.setattr(os, "utime", refused)
    assert workshop.has_archive("shop", release.commit)
    assert not workshop.has_archive("shop", "0" * 40)


def test_a_clock_that_was_set_back_costs_no_archive(source, tmp_path):
    """Archives that were asked for in what is now the future make room for those that are built now."""
    workshop = GitWorkshop(tmp_path / "state", keep=2)
    config, shas = an_app(source.path), []
    for number in range(4):
        shas.append(source.commit({"a": str(number)}))
        release, _ = built(workshop, source, config)
        if number < 2:
            os.utime(release.archive, (time.time() + 86_400, time.time() + 86_400))
    kept = sorted(path.name for path in (tmp_path / "state/releases/shop").glob("*.tar.gz"))
    assert kept == sorted(f"{sha}.tar.gz" for sha in shas[2:])


def test_no_secret_reaches_a_test(source, tmp_path):
    """The command's environment has neither the worker's secrets nor its broker."""
    workshop = GitWorkshop(
        tmp_path / "state", {**os.environ, "ROLLOUT_WEBHOOK_SECRET": "s3cret", "SSH_AUTH_SOCK": "/x"}
    )
    source.commit()
    result = outcome(workshop, source, an_app(source.path, tests="env; git rev-parse --show-toplevel"))
    names = {line.partition("=")[0] for line in result.output.splitlines()}
    assert "s3cret" not in result.output
    assert names >= {"PATH", "HOME", "TMPDIR", "LANG", "CI", "ROLLOUT_APP", "ROLLOUT_COMMIT"}
    assert "SSH_AUTH_SOCK" not in names
