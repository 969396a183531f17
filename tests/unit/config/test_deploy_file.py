"""rollout.toml as a whole: where it is found, its defaults, and the errors it gets."""

import json
from pathlib import Path

import pytest

from rollout.config.deploy_file import AppConfig, load, usable
from rollout.domain.share import Share
from rollout.errors import ConfigError, UnknownName

APP, RELEASE, CANARY, FLEET = "apps.shop", "apps.shop.release", "apps.shop.canary", "apps.shop.fleet"
TESTS, FAN_OUT = "apps.shop.tests", "apps.shop.fan_out"


def test_only_the_required_keys_are_needed(loaded, tmp_path):
    """A file with the required keys works, and the rest is as the contract says."""
    config = loaded()
    app = config.app(None)
    assert (app.name, app.branch, app.poll, app.repository) == (
        "shop",
        "main",
        30.0,
        str(tmp_path.parent / "shop.git"),
    )
    assert (app.tests.command, app.tests.timeout) == ("make test", 300.0)
    assert (app.release.build, app.release.restart, app.release.health, app.release.keep) == ("", "", "", 5)
    assert (app.release.include, app.release.health_timeout) == ((".",), 30.0)
    assert (app.canary.hosts, app.canary.good, app.canary.minimum_good) == (1, ("2xx", "3xx"), 0.95)
    assert (app.canary.bake, app.canary.deadline, app.canary.baseline, app.canary.margin) == (
        60.0,
        600.0,
        4,
        0.01,
    )
    assert (app.canary.on_inconclusive, app.canary.source) == ("halt", "access-log")
    assert (app.fan_out.max_failed, app.fan_out.concurrency) == (Share.parse("1%"), Share.parse("10%"))
    assert (app.fan_out.mode, app.fan_out.host_timeout, app.fan_out.retries) == ("ramp", 120.0, 1)
    assert (app.fan_out.on_halt, app.fan_out.confirm) == ("wait", ())
    assert (app.fleet.user, app.fleet.port) == ("deploy", 22)
    assert app.fleet.known_hosts == Path.home() / ".ssh/known_hosts"
    assert config.server.state_dir == tmp_path / ".rollout"
    assert config.server.webhook_secret_file == tmp_path / "webhook.secret"
    assert config.notify.urls == ()


@pytest.mark.parametrize("host", ['"web1"', '{name = "web1"}', '{name = "web1", vars = {zone = "a"}}'])
def test_an_app_survives_being_stored(with_line, host):
    """The policy that a rollout keeps is JSON, and reading it back gives the same configuration."""
    app = with_line(FLEET, f"hosts = [{host}]").app("shop")
    assert AppConfig.model_validate(json.loads(json.dumps(app.model_dump(mode="json")))) == app


def test_the_file_is_found_by_option_then_environment_then_folder(write, tmp_path, monkeypatch):
    """--config wins over $ROLLOUT_CONFIG, which wins over ./rollout.toml."""
    here = write()
    other = tmp_path / "other.toml"
    other.write_text(here.read_text())
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).path == here
    assert load(environ={"ROLLOUT_CONFIG": "other.toml"}).path == other
    assert load(here, {"ROLLOUT_CONFIG": "other.toml"}).path == here


def test_a_missing_file_names_the_way(tmp_path):
    """A file that is not there is an error that says how to get one."""
    with pytest.raises(ConfigError, match="there is no file") as caught:
        load(tmp_path / "rollout.toml", {})
    assert "rollout init" in caught.value.remedy


@pytest.mark.parametrize(
    "content", [b"[apps", b"\xff\xfe", b"a = 1\na = 2", b"#" * (1 << 21), b"x = " + b"[" * 5000]
)
def test_what_is_no_toml_is_an_error_with_its_place(tmp_path, content):
    """Whatever bytes the file has, the answer is a ConfigError that names the file."""
    path = tmp_path / "rollout.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"rollout\.toml"):
        load(path, {})


def test_every_problem_is_listed_at_once(loaded):
    """One error lists every problem with its path, what was found and what was expected."""
    with pytest.raises(ConfigError) as caught:
        loaded(
            """
            servr = 1
            [server]
            listen = 8300
            [apps.shop]
            repository = "../shop.git"
            pol = "3s"
            [apps.shop.release]
            path = "/srv/shop"
            keep = 1
            [apps.shop.canary]
            deadline = "1s"
            [apps.shop.fan_out]
            max_faild = "1%"
            [apps.other]
            [notify]
            urls = "x"
            """
        )
    lines = str(caught.value).splitlines()
    for expected in (
        "servr: unknown key; did you mean 'server'?",
        "server.listen: found 8300, expected a text",
        "apps.shop.pol: unknown key; did you mean 'poll'?",
        "apps.shop.release.keep: found 1, expected a number of at least 2",
        "apps.shop.canary.log: found nothing, expected the access log's path",
        'apps.shop.canary.deadline: found "1s", expected a duration not shorter than bake',
        "apps.shop.fan_out.max_faild: unknown key; did you mean 'max_failed'?",
        "apps.shop.fleet.hosts: found nothing, expected at least one host",
        "apps.other.repository: found nothing, expected a value",
        'notify.urls: found "x", expected a list',
    ):
        assert any(line.strip().startswith(expected) for line in lines), (expected, lines)


@pytest.mark.parametrize(
    ("table", "line", "says"),
    [
        (APP, 'name = "x"', "apps.shop.name: unknown key"),
        (APP, "repository = 3", "expected a text"),
        (APP, 'repository = "ext::sh -c id"', "expected an address that git can fetch"),
        (APP, 'repository = "--upload-pack=x"', "expected an address that git can fetch"),
        (APP, 'repository = "gopher://x/y"', "expected an address that git can fetch"),
        (APP, 'repository = "https://me:hunter2@git.example.com/x"', "without a password"),
        (APP, 'branch = "-x"', "the name of a branch"),
        (APP, "poll = 30", "expected a duration such as"),
        (APP, 'poll = "30"', "expected a duration such as"),
        (APP, 'webhook_repository = "shop"', "expected a full name"),
        (TESTS, 'source = "external"', "the names of the checks that decide"),
        (TESTS, 'required = ["unit"]', "as there are required checks"),
        (TESTS, "retries = 6", "from 0 (never) to 5"),
        (TESTS, "parallel = 0", "from 1 to 64"),
        (TESTS, 'command = ""', "a text that is not empty"),
        (TESTS, 'timeout = "0s"', "longer than 0s"),
        (RELEASE, 'path = "srv/shop"', "expected an absolute path"),
        (RELEASE, 'path = "/srv/shop;id"', "only letters, digits"),
        (RELEASE, 'path = "/srv/../etc"', "only letters, digits"),
        (RELEASE, 'path = "/srv/{zone}"', "has no variable zone"),
        (RELEASE, 'path = "/"', "expected an absolute path"),
        (RELEASE, "keep = 1", "at least 2"),
        (RELEASE, "keep = 2.0", "a whole number"),
        (RELEASE, "include = []", "at least one element"),
        (RELEASE, 'include = ["../x"]', "a path inside the commit's tree"),
        (CANARY, "hosts = 0", "a count of at least 1"),
        (CANARY, "hosts = true", "a count of at least 1"),
        (CANARY, "hosts = 4", "expected at most 3, the size of the fleet"),
        (
            CANARY,
            'hosts = ["web9"]',
            'found "web9", expected the name of a host in the fleet (web1, web2, web3)',
        ),
        (CANARY, 'hosts = ["web1.example.com"]', "did you mean web1?"),
        (CANARY, 'hosts = ["web1", "web1"]', "each once"),
        (CANARY, 'source = "probe"', "canary.probe: found nothing, expected what is requested on the hosts"),
        (CANARY, 'source = "prometheus"', "canary.prometheus: found nothing, expected the address of a Prom"),
        (CANARY, 'prometheus = "prom:9090"', 'an address such as "http://prometheus.example.com:9090"'),
        (CANARY, 'prometheus = "http://me:hunter2@prom:9090"', "ROLLOUT_PROMETHEUS_TOKEN"),
        (CANARY, 'selector = "http_requests_total"', "the series of one host"),
        (CANARY, "selector = 'rate(x{i=\"{name}\"}[1m])'", "the series of one host"),
        (CANARY, "selector = 'x{job=\"shop\"}'", "tells hosts apart"),
        (CANARY, 'code_label = "a-b"', "the name of a label"),
        (CANARY, 'probe = "localhost:8000"', "an address on the host"),
        (CANARY, 'probe = "http://localhost/ x"', "an address on the host"),
        (CANARY, "allow_probe_pass = 1", "true or false"),
        (CANARY, 'source = "logs"', 'expected "access-log"'),
        (CANARY, 'log = ""', "expected the access log's path"),
        (CANARY, 'on_inconclusive = "pass"', 'expected "halt" or "fail"'),
        (CANARY, "minimum_good = 95", 'a percentage such as "95%"'),
        (CANARY, 'good = ["ok"]', 'a class such as "2xx"'),
        (CANARY, 'bake = "11m"', "not shorter than bake"),
        ("apps.shop.queue", 'freeze = ["00:00 - 12:00", "12:00 - 00:00"]', "windows that leave a gap"),
        (FAN_OUT, 'concurrency = "0%"', "more than nothing"),
        (FAN_OUT, 'max_failed = "1"', 'a share such as "1%"'),
        (FAN_OUT, "max_failed = -1", "not negative"),
        (FAN_OUT, 'confirm = ["tests"]', 'expected "canary" or "fan_out"'),
        (FAN_OUT, "retries = -1", "0 for never"),
        (FLEET, "hosts = []", "at least one host"),
        (FLEET, "hosts = [1]", "expected a name such as"),
        (FLEET, 'hosts = ["a", "a"]', "the host a is there twice"),
        (FLEET, 'hosts = ["a.x.org", "a.y.org"]', "two hosts are named a (a.x.org and a.y.org)"),
        (
            FLEET,
            'hosts = [{name="a", address="10.0.0.1"}, {name="b", address="10.0.0.1"}]',
            "same address, port and path",
        ),
        (FLEET, 'hosts = [{name="a", prot=22}]', "hosts[0].prot: unknown key; did you mean 'port'?"),
        (FLEET, 'hosts = [{name="a", port=0}]', "a port from 1 to 65535"),
        (FLEET, 'hosts = [{name="a", vars={zone="a b"}}]', "hosts[0].vars.zone: found"),
        (FLEET, 'hosts = [{name="a", vars={name="b"}}]', "other than name and address"),
        (FLEET, 'hosts = ["-oProxyCommand=id"]', "has other characters"),
        (FLEET, 'hosts = ["a:22"]', "neither a name nor an IP address"),
        (FLEET, 'hosts = ["web[3:1]"]', "a range that goes up"),
        (FLEET, 'hosts = ["web[1:999999999]"]', "at most 10000 hosts"),
        (FLEET, 'inventory = "./list"', "one of the two"),
        (FLEET, 'user = "-l root"', "a user name"),
        ("server", 'database = "mysql://x"', "expected"),
        ("server", 'broker = "amqp://x"', "not yet built"),
        ("server", 'listen = ":8300"', "an address and a port"),
        ("server", 'listen = "127.0.0.1:0"', "an address and a port"),
        ("server", f'state_dir = "/tmp/{"x" * 100}"', "the system allows 106"),
        ("server", 'state_dir = ""', "a path"),
        ("notify", 'urls = ["slack"]', "an Apprise address"),
        ("apps", "shop2 = 1", "apps.shop2: found 1, expected a table"),
        ("apps.shop 2", "poll = 1", "apps"),
    ],
)
def test_a_bad_value_is_refused_with_its_reason(with_line, table, line, says):
    """Each bad value is refused, and the message says what is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        with_line(table, line)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (APP, 'poll = "0s"'),
        (APP, 'repository = "git@git.example.com:shop.git"'),
        (APP, 'repository = "file:///srv/git/shop.git"'),
        (APP, 'branch = "release/2.x"'),
        (TESTS, 'source = "external"\nrequired = ["unit"]\npull_requests = true'),
        (RELEASE, 'health_timeout = "0s"'),
        (RELEASE, 'path = "/srv/{name}/{address}/"'),
        (CANARY, 'hosts = ["web2"]'),
        (CANARY, "hosts = 3"),
        (CANARY, 'source = "probe"\nprobe = "http://localhost:{port}/a?b=c"'),
        (CANARY, 'source = "prometheus"\nprometheus = "https://[::1]:9090/prefix/"'),
        (CANARY, 'selector = \'x:y{pod="{address}",a!~"b|c"}\''),
        (FAN_OUT, "max_failed = 0"),
        (FAN_OUT, "concurrency = 1"),
        (FLEET, 'hosts = ["10.0.0.[1:9]", "::1"]'),
        ("server", 'flower = ""'),
        ("server", 'listen = "[::1]:8300"'),
        ("server", 'database = "postgresql://me@db/rollout"'),
    ],
)
def test_a_good_value_is_taken(with_line, table, line):
    """What the contract allows is not refused."""
    assert with_line(table, line).apps


def test_health_needs_time(loaded):
    """A health check with a health_timeout of 0s is refused."""
    with pytest.raises(ConfigError, match="health_timeout"):
        loaded(
            """
            [apps.shop]
            repository = "x"
            [apps.shop.release]
            path = "/srv/shop"
            health = "true"
            health_timeout = "0s"
            [apps.shop.canary]
            log = "/l"
            [apps.shop.fleet]
            hosts = ["a"]
            """
        )


def test_two_apps_do_not_share_a_place(loaded):
    """The same address, port and path in two apps is refused, in another spelling too; another path is fine."""
    app = """
        [apps.{name}]
        repository = "x"
        [apps.{name}.release]
        path = "{path}"
        [apps.{name}.canary]
        log = "/l"
        [apps.{name}.fleet]
        hosts = ["{host}"]
    """
    first = app.format(name="a", path="/srv/x", host="web1")
    assert loaded(first + app.format(name="b", path="/srv/y", host="web1")).apps
    with pytest.raises(ConfigError, match="the same address, port and path as web1 of app a"):
        loaded(first + app.format(name="b", path="/srv//x/", host="WEB1"))


def test_an_app_is_asked_for_by_name(loaded):
    """None is the only app; with several, or a wrong name, the error names them."""
    config = loaded()
    assert config.app(None) is config.app("shop")
    with pytest.raises(UnknownName, match="known are shop"):
        config.app("shopp")


def test_several_apps_need_a_name(write, loaded):
    """With several apps, None is refused and the apps are named."""
    text = write().read_text()
    both = text + text.replace("apps.shop", "apps.blog").replace("/srv/shop", "/srv/blog")
    with pytest.raises(ConfigError, match="blog, shop"):
        loaded(both).app(None)


def test_listening_beyond_this_machine_needs_the_secret(with_line, tmp_path):
    """A server that others can reach starts only with a webhook secret, from file or environment."""
    line = 'listen = "0.0.0.0:8300"'
    with pytest.raises(ConfigError, match="can be reached from other machines"):
        with_line("server", line)
    assert with_line("server", line, ROLLOUT_WEBHOOK_SECRET="s3cret").apps
    (tmp_path / "webhook.secret").write_text("s3cret\n")
    assert with_line("server", line).apps


def test_secrets_that_others_can_read_are_warned_of(loaded, tmp_path):
    """A secret file that others can read works, with a warning; a private one has none."""
    secret = tmp_path / "webhook.secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o644)
    assert any("chmod 600" in warning for warning in loaded().warnings)
    secret.chmod(0o600)
    assert not any("webhook.secret" in warning for warning in loaded().warnings)


def test_the_environment_replaces_addresses_with_passwords(loaded):
    """ROLLOUT_DATABASE, ROLLOUT_BROKER and ROLLOUT_NOTIFY_URLS stand in for what the file says."""
    config = loaded(
        ROLLOUT_DATABASE="postgresql://me:hunter2@db/rollout",
        ROLLOUT_BROKER="redis://:hunter2@broker/0",
        ROLLOUT_NOTIFY_URLS="json://a/hunter2\njson://b",
    )
    assert config.server.database_url == "postgresql+psycopg://me:hunter2@db/rollout"
    assert config.server.broker_url == "redis://:hunter2@broker/0"
    assert config.notify.urls == ("json://a/hunter2", "json://b")
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("server", 'database = "mysql://me:hunter2@db/x"'),
        ("server", 'broker = "http://:hunter2@db/x"'),
        ("notify", 'urls = ["S://hunter2"]'),
        (APP, 'repository = "https://me:hunter2@git.example.com/x"'),
        (CANARY, 'prometheus = "http://me:hunter2@prom:9090"'),
    ],
)
def test_errors_do_not_tell_passwords(with_line, table, line):
    """A refused address is not printed when it may hold a password."""
    with pytest.raises(ConfigError) as caught:
        with_line(table, line)
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def small(write):
    """The small rollout.toml, of an app of this name."""
    return lambda app: write().read_text().replace("shop", app)


def test_an_app_whose_table_is_wrong_is_left_out_of_what_is_usable(write, small):
    """The others are there as they are; what is wrong with it is said when it is asked for, and as a whole the file is refused."""
    both = small("shop") + small("blog") + "[apps.blog.tests]\n"
    file = write(both + "retires = 3\n")
    config = usable(file, {})
    assert (list(config.apps), list(config.left_out), config.names) == (["shop"], ["blog"], ["shop", "blog"])
    with pytest.raises(ConfigError, match=r"1 to mend\n  apps\.blog\.tests\.retires: unknown key") as caught:
        config.app("blog")
    with pytest.raises(ConfigError) as whole:
        load(file, {})
    assert str(whole.value) == str(caught.value)
    with pytest.raises(ConfigError, match="several apps"):
        config.app(None)
    with pytest.raises(UnknownName, match="known are blog, shop"):
        config.app("shp")
    assert usable(write(both + "retries = 3\n"), {}).left_out == {}


def test_apps_that_claim_the_same_host_are_both_left_out(write, small):
    """Which of them has it nobody knows: neither ships to it. With a third app nobody has that trouble."""
    both = small("shop") + small("blog").replace("/srv/blog", "/srv/shop")
    with pytest.raises(ConfigError, match="3 to mend"):
        usable(write(both), {})
    config = usable(write(both + small("news")), {})
    assert (list(config.apps), sorted(config.left_out)) == (["news"], ["blog", "shop"])


@pytest.mark.parametrize("more", ["[servr]", "[notify]\nurls = 3", '[server]\nlisten = "x"'])
def test_what_is_wrong_outside_of_the_apps_leaves_nothing_usable(write, small, more):
    """Everything is listed at once, as ever."""
    with pytest.raises(ConfigError, match="2 to mend"):
        usable(write(small("shop") + small("blog") + f"[apps.blog.tests]\nretires = 3\n{more}\n"), {})


def test_restart_limit_follows_the_health_timeout(with_line):
    """A restart may take three times the health timeout, at least one minute and at most five."""
    limits = [
        with_line(RELEASE, f'health_timeout = "{t}"').app(None).release.restart_limit
        for t in ("1s", "30s", "1h")
    ]
    assert limits == [60.0, 90.0, 300.0]


def test_a_share_of_concurrency_is_at_least_ten(with_line):
    """A share gives at least 10 hosts at once; a number is taken as it is."""
    assert with_line(FAN_OUT, 'concurrency = "10%"').app(None).fan_out.at_once(20) == 10
    assert with_line(FAN_OUT, 'concurrency = "10%"').app(None).fan_out.at_once(500) == 50
    assert with_line(FAN_OUT, "concurrency = 3").app(None).fan_out.at_once(500) == 3


def test_state_dir_makes_the_addresses(with_line, tmp_path):
    """The embedded database and broker are in the state directory, whatever characters it has."""
    server = with_line("server", 'state_dir = "a b?#%"').server
    assert server.database_url == f"sqlite:///{tmp_path}/a%20b%3F%23%25/rollout.db"
    assert server.broker_url == f"redis+socket://{tmp_path}/a%20b%3F%23%25/broker.sock"
    assert (server.listen_host, server.listen_port, server.flower_host, server.flower_port) == (
        "127.0.0.1",
        8300,
        "127.0.0.1",
        5555,
    )
