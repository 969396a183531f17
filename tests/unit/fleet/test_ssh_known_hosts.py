"""OpenSSH's known_hosts as it is read here."""

import base64
import hmac
import os

import pytest

from rollout.errors import HostKeyRefused
from rollout.fleet.known_hosts import KnownHosts, KnownHostsFiles, known_name, scan_remedy

BLOB = base64.b64encode(b"key one").decode()
OTHER = base64.b64encode(b"key two").decode()


def known(text):
    """A parsed file."""
    return KnownHosts.parse("known_hosts", text)


def blobs(found, name):
    """The keys of a name, without their types."""
    return [blob for _, blob in found.keys(name)]


def hashed(name):
    """A name as `ssh-keygen -H` writes it."""
    salt = bytes(range(20))
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def test_plain_names_and_ports():
    """A line is about each of its names; another port is another name."""
    found = known(f"web1,10.0.0.1 ssh-ed25519 {BLOB} a comment\n[web1]:2222 ssh-ed25519 {OTHER}\n")
    assert blobs(found, "web1") == blobs(found, "10.0.0.1") == [b"key one"]
    assert blobs(found, "[web1]:2222") == [b"key two"]
    assert blobs(found, "web2") == []


def test_hashed_names():
    """A hashed name matches the name it was made of and no other."""
    found = known(f"{hashed('[web1]:2222')} ssh-ed25519 {BLOB}\n")
    assert blobs(found, "[web1]:2222") == [b"key one"]
    assert blobs(found, "web1") == []


def test_hashed_names_that_cannot_be_read():
    """A hashed name that was cut off is no line, and hides no other."""
    whole = hashed("web1")
    cut = [whole[:-3], whole.rpartition("|")[0], "|1|"]
    found = known("".join(f"{one} ssh-ed25519 {OTHER}\n" for one in cut) + f"{whole} ssh-ed25519 {BLOB}\n")
    assert blobs(found, "web1") == [b"key one"]


def test_a_hashed_name_that_is_revoked():
    """A revoked key is no key of whoever else it is written down for."""
    found = known(f"web1 ssh-ed25519 {BLOB}\n@revoked {hashed('web1')} ssh-ed25519 {BLOB}\n")
    assert blobs(found, "web1") == []


def test_patterns_and_exceptions():
    """Stars match, and an exclamation mark takes a name out."""
    found = known(f"*.example.com,!bad.example.com ssh-ed25519 {BLOB}\n")
    assert blobs(found, "web1.example.com") == [b"key one"]
    assert blobs(found, "bad.example.com") == []


def test_several_keys_of_one_host():
    """Each of a host's keys is accepted, also two of one type."""
    found = known(f"web1 ssh-ed25519 {BLOB}\nweb1 ssh-ed25519 {OTHER}\nweb1 ssh-rsa {BLOB}\n")
    assert found.keys("web1") == (
        ("ssh-ed25519", b"key one"),
        ("ssh-ed25519", b"key two"),
        ("ssh-rsa", b"key one"),
    )


def test_revoked_keys_are_no_keys():
    """A revoked key is refused although another line allows it."""
    found = known(f"web1 ssh-ed25519 {BLOB}\n@revoked * ssh-ed25519 {BLOB}\nweb1 ssh-ed25519 {OTHER}\n")
    assert blobs(found, "web1") == [b"key two"]


@pytest.mark.parametrize(
    "line",
    ["", "# comment", "web1 ssh-ed25519", "web1 ssh-ed25519 !!!", f"@cert-authority web1 ssh-ed25519 {BLOB}"],
)
def test_lines_that_say_nothing(line):
    """A line that cannot be read, or is for certificates, makes nobody known and hurts no other line."""
    found = known(f"{line}\nweb2 ssh-ed25519 {BLOB}\n")
    assert blobs(found, "web1") == []
    assert blobs(found, "web2") == [b"key one"]


def test_file_is_parsed_once_and_again_when_it_changes(tmp_path):
    """The same file is the same object until it is changed."""
    files, file = KnownHostsFiles(), tmp_path / "known_hosts"
    file.write_text(f"web1 ssh-ed25519 {BLOB}\n")
    first = files.of(str(file))
    assert files.of(str(file)) is first
    file.write_text(f"web1 ssh-ed25519 {OTHER}\nweb2 ssh-ed25519 {OTHER}\n")
    os.utime(file, ns=(1, 1))
    assert blobs(files.of(str(file)), "web1") == [b"key two"]


def test_missing_file_knows_nobody(tmp_path):
    """Without the file every host is refused, and the message says which file."""
    with pytest.raises(HostKeyRefused, match="absent"):
        KnownHostsFiles().of(str(tmp_path / "absent"))


def test_names_as_openssh_spells_them():
    """Port 22 is not spelt out, every other one is."""
    assert known_name("web1", 22) == "web1"
    assert known_name("web1", 2222) == "[web1]:2222"


def test_remedy_can_be_typed():
    """The remedy holds the command that looks and the one that adds."""
    remedy = scan_remedy("/etc/known", "web1", 2222)
    assert "ssh-keyscan -p 2222 web1 | ssh-keygen -lf -" in remedy
    assert "ssh-keyscan -p 2222 web1 >> /etc/known" in remedy
