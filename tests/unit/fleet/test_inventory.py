"""Which hosts an app has: from rollout.toml, and from programs that print Ansible's inventory."""

import json

import pytest

from rollout.config.deploy_file import AppConfig, load
from rollout.errors import ConfigError
from rollout.fleet import ansible, inventory, inventory_program
from tests.support.processes import alive, until

INVENTORY = {
    "_meta": {
        "hostvars": {
            "web1": {"ansible_host": "10.0.0.1", "ansible_port": 2222, "zone": "b", "db_password": "hunter2"},
            "web2": {"ansible_port": "2201", "ansible_user": "root", "rack": 7, "flag": True, "note": "a b"},
        }
    },
    "all": {"children": ["web", "ungrouped"], "vars": {"ansible_user": "all", "zone": "all"}},
    "web": {"hosts": ["web1", "web2"], "vars": {"zone": "a", "ansible_user": "web"}},
}


@pytest.fixture
def program(tmp_path):
    """Writes a shell program and returns its path."""

    def program(script):
        path = tmp_path / "inventory"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return program


@pytest.fixture
def prints(program, tmp_path):
    """A program that prints this as JSON."""

    def prints(value):
        (tmp_path / "listed.json").write_text(json.dumps(value))
        return program("cat listed.json")

    return prints


def an_app(*hosts, path="/srv/shop", restart="", canary=1, **fleet):
    """An app with this fleet."""
    return AppConfig.model_validate(
        {
            "name": "shop",
            "repository": "/srv/shop.git",
            "release": {"path": path, "restart": restart},
            "canary": {"log": "/l", "hosts": canary},
            "fleet": {"hosts": list(hosts), **fleet},
        }
    )


def listed(app, **options):
    """Each host as (name, address, port, user, path)."""
    return [(m.name, m.address, m.port, m.user, m.path) for m in inventory.members(app, **options)]


def test_a_name_is_an_address_and_its_first_part_a_name():
    """web001.example.com is reached there and called web001; an IP address is its own name."""
    app = an_app("web[001:002].example.com", "10.0.0.1", "::1", path="/srv/{name}")
    with pytest.raises(ConfigError, match=r"release\.path is '/srv/::1'"):
        inventory.members(app)
    assert listed(
        an_app("web[001:002].example.com", "10.0.0.1", user="me", port=23, path="/srv/{name}/")
    ) == [
        ("web001", "web001.example.com", 23, "me", "/srv/web001"),
        ("web002", "web002.example.com", 23, "me", "/srv/web002"),
        ("10.0.0.1", "10.0.0.1", 23, "me", "/srv/10.0.0.1"),
    ]


def test_tables_say_more_than_names():
    """Ranges in name and address go together, and variables fill path and address."""
    table = {
        "name": "w[1:2]",
        "address": "127.0.0.[1:2]",
        "port": 2222,
        "user": "x",
        "vars": {"zone": "a", "n": 3},
    }
    app = an_app(
        table,
        {"name": "db", "address": "{name}.{zone}.org", "vars": {"zone": "c"}},
        path="/srv/{zone}/{name}",
    )
    assert listed(app) == [
        ("w1", "127.0.0.1", 2222, "x", "/srv/a/w1"),
        ("w2", "127.0.0.2", 2222, "x", "/srv/a/w2"),
        ("db", "db.c.org", 22, "deploy", "/srv/c/db"),
    ]
    assert inventory.members(app)[0].variables == {"zone": "a", "n": "3"}


def test_ranges_of_different_lengths_do_not_go_together():
    """Two names and three addresses are an error."""
    with pytest.raises(ConfigError, match="are 2 hosts, and"):
        inventory.members(an_app({"name": "w[1:2]", "address": "127.0.0.[1:3]"}))


def test_an_inventory_is_read_as_ansible_reads_it(prints):
    """Addresses, ports and users come from the host's own variables, else its groups', else rollout.toml."""
    app = an_app(inventory=str(prints(INVENTORY)), path="/srv/{zone}/{name}")
    assert listed(app) == [
        ("web1", "10.0.0.1", 2222, "web", "/srv/b/web1"),
        ("web2", "web2", 2201, "root", "/srv/a/web2"),
    ]


def test_only_mentioned_variables_are_kept(prints):
    """Variables that no path or command mentions are not kept: they may be secrets."""
    app = an_app(
        inventory=str(prints(INVENTORY)), restart="x {rack} {flag} {note} {db_host}", path="/srv/{zone}"
    )
    assert [member.variables for member in inventory.members(app)] == [
        {"zone": "b"},
        {"zone": "a", "rack": "7", "flag": "true"},
    ]


def test_hosts_are_asked_one_by_one_without_meta(program):
    """An inventory without _meta.hostvars is asked for each host with --host."""
    script = """
    case "$1" in
      --list) echo '{"web": ["a", "b"]}' ;;
      --host) echo "{\\"ansible_host\\": \\"$2.example.com\\"}" ;;
    esac
    """
    assert [host[:2] for host in listed(an_app(inventory=str(program(script))))] == [
        ("a", "a.example.com"),
        ("b", "b.example.com"),
    ]


def test_inner_groups_override_outer_ones():
    """Variables of a group that lies deeper win, circles of groups end, unknown children are left out."""
    found = ansible.hosts(
        {
            "_meta": {"hostvars": {}},
            "inner": {"hosts": ["a"], "vars": {"x": "inner"}, "children": ["outer"]},
            "outer": {"children": ["inner", "nowhere"], "vars": {"x": "outer", "y": "outer"}},
            "all": {"vars": {"x": "all", "y": "all", "z": "all"}},
            "other": {"hosts": ["b"]},
        },
        lambda _: {},
    )
    assert list(found) == ["a", "b"]
    assert (found["a"]["y"], found["a"]["z"]) == ("outer", "all")
    assert found["b"] == {"x": "all", "y": "all", "z": "all"}
    plain = {
        "_meta": {},
        "in": {"hosts": ["a"], "vars": {"x": 1}},
        "out": {"children": ["in"], "vars": {"x": 2}},
    }
    assert ansible.hosts(plain, lambda _: {}) == {"a": {"x": 1}}


def test_paths_of_inventories_start_at_the_file(prints, tmp_path):
    """A relative inventory is found beside rollout.toml, and runs in its own folder."""
    prints(INVENTORY)
    file = tmp_path / "rollout.toml"
    file.write_text(
        '[apps.shop]\nrepository = "x"\nrelease = {path = "/srv/x"}\ncanary = {log = "/l"}\nfleet = {inventory = "./inventory"}\n'
    )
    config = load(file, {})
    assert len(inventory.members(config.app(None))) == 2
    assert inventory.collisions(config) == []


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "found no host"),
        ({"web": {"hosts": []}}, "found no host"),
        ([], "printed JSON that is no object"),
        ({"web": {"hosts": "a"}}, "web.hosts is not a list of names"),
        ({"web": 3}, "web is not a table"),
        ({"web": ["a"], "_meta": {"hostvars": {"a": 1}}}, "_meta.hostvars.a is not a table"),
        ({"web": ["a;id"], "_meta": {}}, "has other characters"),
        (
            {"web": ["a"], "_meta": {"hostvars": {"a": {"ansible_host": "-oProxyCommand=id"}}}},
            "neither a name nor an IP",
        ),
        ({"web": ["a"], "_meta": {"hostvars": {"a": {"ansible_port": "ssh"}}}}, "a port that is no number"),
        ({"web": ["a"], "_meta": {"hostvars": {"a": {"ansible_port": 70000}}}}, "not one from 1 to 65535"),
        (
            {"web": ["a", "b"], "_meta": {"hostvars": {n: {"ansible_host": "1.2.3.4"} for n in "ab"}}},
            "same address",
        ),
        ({"web": ["a", "b"], "_meta": {}, "_": []}, "expected the name of a host in the fleet (a, b)"),
    ],
)
def test_an_unusable_inventory_is_an_error_that_says_why(prints, value, says):
    """Whatever an inventory prints, it is a fleet or a ConfigError with its reason."""
    app = an_app(inventory=str(prints(value)), canary=["web9"] if "_" in value else 1)
    with pytest.raises(ConfigError) as caught:
        inventory.members(app)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo '{'", "printed no JSON"),
        ("printf '\\377'", "printed no JSON"),
        ("echo first >&2; echo no credentials >&2; exit 3", "ended with status 3: no credentials"),
        ("kill -9 $$", "ended with status -9: and said nothing"),
        ("printf 'a\\033[31mb\\n' >&2; exit 1", "status 1: a?[31mb"),
    ],
)
def test_a_failing_program_is_an_error_that_says_how(program, script, says):
    """A program that fails is named with its last words, without control characters."""
    with pytest.raises(ConfigError) as caught:
        inventory.members(an_app(inventory=str(program(script))))
    assert says in str(caught.value)


def test_a_program_that_cannot_be_started_is_an_error(tmp_path):
    """A missing file, a file that may not be executed and a text are errors that say so."""
    path = tmp_path / "inventory"
    with pytest.raises(ConfigError, match="No such file"):
        inventory.members(an_app(inventory=str(path)))
    path.write_text("hello")
    with pytest.raises(ConfigError, match="Permission denied"):
        inventory.members(an_app(inventory=str(path)))
    path.chmod(0o755)
    with pytest.raises(ConfigError, match="Exec format error"):
        inventory.members(an_app(inventory=str(path)))


def test_a_program_that_does_not_end_is_killed_whole(program, tmp_path):
    """At its time limit the program and what it started are gone."""
    script = f"sleep 1000 & echo $! > {tmp_path}/child; wait"
    with pytest.raises(ConfigError, match="did not end within"):
        inventory.members(an_app(inventory=str(program(script))), timeout_s=0.5)
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive(child), what="the program's child ends")


def test_what_a_program_leaves_behind_does_not_hold_us_up(program, prints, tmp_path):
    """A program that ends is read at once, though its children keep the pipe; they are killed."""
    prints({"web": ["a"], "_meta": {}})
    script = f"sleep 1000 & echo $! > {tmp_path}/child; cat listed.json"
    assert len(inventory.members(an_app(inventory=str(program(script))), timeout_s=60)) == 1
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive(child), what="the program's child ends")


def test_a_program_that_prints_without_end_is_cut_off(program, monkeypatch):
    """More than the limit is refused, and the program ends."""
    monkeypatch.setattr(inventory_program, "MOST_BYTES", 1 << 20)
    with pytest.raises(ConfigError, match="printed more than 1 MiB"):
        inventory.members(an_app(inventory=str(program("yes"))))


def test_a_program_that_complains_without_end_takes_no_memory(program, monkeypatch):
    """Only the end of what it says on the second channel is kept."""
    script = "head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo last >&2; exit 1"
    with pytest.raises(ConfigError, match="ended with status 1: last"):
        inventory.members(an_app(inventory=str(program(script))))


def test_a_program_does_not_see_our_secrets(program, monkeypatch, tmp_path):
    """Variables that begin with ROLLOUT_ are not handed on; the others are."""
    monkeypatch.setenv("ROLLOUT_API_TOKEN", "hunter2")
    monkeypatch.setenv("CLOUD_REGION", "eu")
    script = f'env > {tmp_path}/env; echo \'{{"web": ["a"], "_meta": {{}}}}\''
    inventory.members(an_app(inventory=str(program(script))))
    seen = (tmp_path / "env").read_text()
    assert "CLOUD_REGION=eu" in seen
    assert "hunter2" not in seen
