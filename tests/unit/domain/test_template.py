"""Variables in paths and commands."""

from types import SimpleNamespace

import pytest

from rollout.domain import template
from rollout.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/{name}", "/srv/web1"),
        ("{name}{name}", "web1web1"),
        ("${name} {name}", "${name} web1"),
        ("$${name}", "$${name}"),
        ("{unknown} {} {a,b} {name", "{unknown} {} {a,b} {name"),
        ("{{name}}", "{web1}"),
        ("awk '{print $1}'", "awk '{print $1}'"),
        ("{Name}", "{Name}"),
    ],
)
def test_only_known_variables_are_filled_in(text, expected):
    """Known names between braces are replaced unless a $ stands before; everything else stays."""
    assert template.fill(text, {"name": "web1"}) == expected


@pytest.mark.parametrize("value", ["", "a b", "$(id)", "a;b", "a\nb", "a'b", "{name}", "é", "a\n"])
def test_a_value_that_a_shell_could_read_is_refused(value):
    """A value outside of letters, digits and . _ : / @ - is never put into a command."""
    with pytest.raises(ConfigError, match="cannot be put into a command"):
        template.fill("echo {zone}", {"zone": value})


def test_a_bad_value_that_is_not_used_harms_nothing():
    """Only values that are used are looked at."""
    assert template.fill("echo {name}", {"name": "web1", "motd": "$(id)"}) == "echo web1"


def test_what_is_filled_in_is_not_filled_in_again():
    """A value never becomes a place for another value."""
    assert template.fill("{a}", {"a": "b", "b": "c"}) == "b"


def test_name_and_address_are_the_hosts_own():
    """No variable overrides a host's name and address."""
    host = SimpleNamespace(name="web1", address="10.0.0.1", variables={"name": "x", "zone": "a"})
    assert template.variables_of(host) == {"name": "web1", "address": "10.0.0.1", "zone": "a"}


def test_unknown_names_can_be_told():
    """The names that would stay as they are can be listed, the shell's own left out."""
    assert template.unknown("{name} {zone} ${home} {}", {"name": "web1"}) == ["zone"]
