"""host.sh: how it is called, what it accepts, and what it says of itself."""

import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.host_sh import (
    BOTH,
    BROKEN,
    DONE,
    PROGRAM,
    REFUSED,
    A,
    B,
    Host,
    a_release,
    header,
    hosts,
    shell,
)

host = hosts()
GOOD = {
    "epoch": 1,
    "op": 1,
    "host": "web1",
    "commit": A,
    "digest": "0" * 64,
    "restart": "true",
    "restart_limit": 1,
    "health": "true",
    "health_timeout": 1,
}


@pytest.mark.needs("shellcheck")
def test_shellcheck_has_nothing_to_say():
    """Not even about taste."""
    found = subprocess.run(["shellcheck", PROGRAM], capture_output=True, text=True)
    assert found.stdout == ""
    assert found.returncode == 0


def test_every_disabled_check_says_why():
    """A directive for shellcheck has its reason behind it."""
    directives = [line for line in PROGRAM.read_text().splitlines() if "shellcheck disable" in line]
    assert all("#" in line.partition("shellcheck")[2] for line in directives)


def test_hello_says_who_is_there(host):
    """It names clock, boot and current, and changes nothing."""
    before = sorted(host.root.rglob("*"))
    reply = host.call("hello")
    assert [key for key, _ in reply.pairs] == ["rollout", "clock", "boot", "current", "end"]
    assert (reply["rollout"], reply["current"], reply.code, reply.stderr) == ("1", "none", DONE, "")
    assert sorted(host.root.rglob("*")) == before


def test_a_deep_hello_looks_at_tools_room_and_rights(host):
    """On a good host nothing is missing."""
    reply = host.call("hello", {"deep": 1})
    assert (reply["missing"], reply["writable"], reply.code) == ("", "yes", DONE)
    assert int(reply["free_kb"] or 0) > 1000
    assert reply["user"]
    assert [entry.name for entry in host.root.iterdir()] == [".rollout"]


def test_a_deep_hello_names_what_is_missing(host, tmp_path):
    """Each tool that is absent, or does not do what is needed, has its own line."""
    few = tmp_path / "few"
    few.mkdir()
    for tool in ("rm", "mkdir", "ln", "df", "tail", "date", "id", "sleep", "sync"):
        (few / tool).symlink_to(shutil.which(tool, path=host.shell.path) or tool)
    (few / "mv").write_text("#!/bin/sh\nexit 1\n")
    (few / "mv").chmod(0o755)
    poor = Host(
        tmp_path / "poor",
        type(host.shell)(
            host.shell.name, (shutil.which(host.shell.command[0]) or "", *host.shell.command[1:]), str(few)
        ),
    )
    missing = {value for key, value in poor.call("hello", {"deep": 1}).pairs if key == "missing"}
    assert {"flock", "setsid", "sha256sum", "mv -T"} <= missing
    assert "sleep 0.01" not in missing


def test_the_folder_may_be_reached_by_a_link(host, tmp_path):
    """The script finds its root from its own name, through links."""
    link = tmp_path / "link"
    link.symlink_to(host.root)
    host.prepare(a_release(A), op=1)
    host.activate(a_release(A), op=2)
    through = [*host.shell.command, f"{link}/.rollout/bin/{host.program.name}", "hello"]
    said = subprocess.run(through, input="\n", capture_output=True, text=True)
    assert f"current={A}" in said.stdout


def test_a_copy_elsewhere_does_nothing(host, tmp_path):
    """Called from anywhere but `.rollout/bin` it does not guess a root."""
    copy = shutil.copy(host.program, tmp_path / "host.sh")
    said = subprocess.run([*host.shell.command, copy, "hello"], input="\n", capture_output=True, text=True)
    assert said.stdout.splitlines() == ["reason=not installed", "end=30"]


@pytest.mark.parametrize("verb", ["", "x", "switch", "hello;id", "../hello", "refuse"])
def test_an_unknown_verb_is_refused(host, verb):
    """The verbs are those of docs/host.md, and no name of a function of ours."""
    assert host.call(verb).brief == (REFUSED, "bad input")


BAD_VALUES = [
    ("epoch", "01"),
    ("epoch", "-1"),
    ("epoch", "1 "),
    ("epoch", " 1"),
    ("epoch", "1e3"),
    ("epoch", "0x10"),
    ("epoch", "٣"),
    ("epoch", "123456789012345678"),
    ("epoch", "$(touch pwned)"),
    ("epoch", "a[$(touch pwned)]"),
    ("epoch", ""),
    ("op", "0"),
    ("op", "1\r"),
    ("op", "`touch pwned`"),
    ("commit", A[:-1]),
    ("commit", A + "a"),
    ("commit", A.upper()),
    ("commit", "../" * 13 + "a"),
    ("commit", "none"),
    ("commit", "*"),
    ("digest", "0" * 63),
    ("digest", ""),
    ("host", "a b"),
    ("host", "a;touch pwned"),
    ("host", "a/../b"),
    ("host", "h" * 256),
    ("host", ""),
    ("restart_limit", "1.5"),
    ("restart_limit", "9999999"),
    ("health_timeout", "ten"),
]


@pytest.mark.parametrize(
    ("key", "value"), BAD_VALUES, ids=[f"{key}={value[:20]!r}" for key, value in BAD_VALUES]
)
def test_a_value_outside_its_class_is_refused(host, key, value):
    """Before the greeting, with nothing written and nothing run."""
    reply = host.call("activate", GOOD | {key: value})
    assert reply.brief == (REFUSED, "bad input")
    assert reply["clock"] is None
    assert [entry.name for entry in host.root.iterdir()] == [".rollout"]


@pytest.mark.parametrize(
    "key", ["epoch", "op", "host", "commit", "digest", "restart_limit", "health_timeout"]
)
def test_a_missing_or_doubled_key_is_refused(host, key):
    """Each key of a verb stands there once."""
    assert host.call("activate", GOOD | {key: None}).brief == (REFUSED, "bad input")
    assert host.call("activate", GOOD | {key: [GOOD[key]] * 2}).brief == (REFUSED, "bad input")


@pytest.mark.parametrize(
    "line",
    [
        "sizes=1",
        "size=1",
        "Epoch=1",
        "epoch op=1",
        "=1",
        "1",
        "epoch",
        " epoch=1",
        "restart_limit epoch=1",
        "PATH=/tmp",
    ],
)
def test_an_unknown_key_is_refused(host, line):
    """A key of another verb is unknown too, and so is a line without one."""
    assert host.call("activate", f"{line}\n{header(GOOD)}").brief == (REFUSED, "bad input")


def test_an_endless_header_is_refused(host):
    """64 KiB are enough for any command."""
    assert host.call("activate", GOOD | {"restart": ["x" * 1000] * 70}).brief == (REFUSED, "bad input")


def test_rollback_accepts_the_two_names_that_are_no_commit(host):
    """`none` and `foreign` are targets of a rollback, without a digest."""
    keys = GOOD | {"commit": "none", "digest": ""}
    assert host.call("rollback", keys).brief == (REFUSED, "cut off")  # it has greeted and waits for `within`
    assert host.call("rollback", GOOD | {"commit": "nothing"}).brief == (REFUSED, "bad input")


VERBS = ["hello", "prepare", "activate", "rollback", "status", "clean"]
KEYS = [*GOOD, "size", "keep", "spare", "deep", "op_asked", "wait", "$(id)", "*", ""]
NASTY = [
    "",
    "0",
    "1",
    "7",
    A,
    B,
    "none",
    "0" * 64,
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "*",
    "../..",
    "\t",
    "%s%n",
    "\\",
    "'",
    '"',
    "é",
    "\r",
]
header_lines = st.one_of(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(NASTY)).map("=".join),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=30),
)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.needs(name)) for name in BOTH])
def test_no_header_makes_it_run_or_break_anything(name, tmp_path_factory):
    """Whatever is sent: an answer with a known code, no file of the sender's, no release switched."""
    folder = tmp_path_factory.mktemp("hostile")
    made = Host(folder / "srv", shell(name, folder / "applets"))

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(VERBS),
        st.lists(header_lines, max_size=12),
        st.sampled_from(["", "\n", "\n\n", "\nwithin=9\n"]),
    )
    @example("status", [], "\n")
    def anything(verb, lines, end):
        reply = made.call(verb, "\n".join(lines) + "\n" + end)
        assert reply.code in {DONE, REFUSED, BROKEN}
        assert made.current is None
        assert not list(folder.rglob("pwned"))

    anything()
    made.quiet()
    assert made.records() == []
