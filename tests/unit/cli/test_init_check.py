"""init and check: the beginning."""

import stat
from types import SimpleNamespace

import pytest

from rollout.cli import host_report
from rollout.config import deploy_file, reference
from rollout.domain.model import Member
from rollout.domain.verdict import Interval
from rollout.errors import HostKeyRefused, MetricUnavailable, ServiceUnavailable, Unreachable
from tests.support.local_fleet import a_target

MEMBER = Member("web001", "10.0.0.1", 22, "deploy", {}, "/srv/shop")
READY = {"missing": "", "writable": "yes", "user": "deploy", "free_kb": "9999999", "sh_ms": "3"}


def test_init_writes_the_commented_reference(plain, tmp_path):
    """The file is the reference itself, it loads, and a secret that only its owner can read lies beside it."""
    told = plain("init")
    assert told.code == 0
    assert (tmp_path / "rollout.toml").read_text() == reference.text()
    assert deploy_file.load(tmp_path / "rollout.toml", {}).warnings is not None
    assert stat.S_IMODE((tmp_path / "webhook.secret").stat().st_mode) == 0o600
    assert "rollout check" in told.out


def test_init_writes_where_it_is_told(plain, tmp_path):
    """--config names the file; the document says what was written."""
    told = plain("init", "--config", tmp_path / "other.toml", "--json")
    assert told.json == {
        "file": str(tmp_path / "other.toml"),
        "webhook_secret_file": str(tmp_path / "webhook.secret"),
    }


def test_init_never_writes_over_a_file(plain, tmp_path):
    """4 when one is there; --force writes over it, and keeps the secret."""
    (tmp_path / "rollout.toml").write_text("mine")
    (tmp_path / "webhook.secret").write_text("old")
    assert plain("init").code == 4
    assert (tmp_path / "rollout.toml").read_text() == "mine"
    assert plain("init", "--force").code == 0
    assert (tmp_path / "webhook.secret").read_text() == "old"


def test_init_where_nothing_can_be_written_is_2(plain, tmp_path):
    """A folder that is not there."""
    assert plain("init", "--config", tmp_path / "no" / "rollout.toml").code == 2


def found(told, level):
    """What was found at this level, by subject."""
    return {one["what"]: one for one in told.json["findings"] if one["level"] == level}


def test_check_finds_everything_ready(cli, deps):
    """0, and one line for each thing looked at."""
    deps.workshop.push()
    told = cli("check", "--json")
    assert (told.code, told.json["ok"]) == (0, True)
    assert set(found(told, "ok")) == {
        "configuration",
        "database",
        "broker",
        "shop: repository",
        "shop: hosts",
        "shop: canary source",
    }
    assert found(told, "ok")["shop: canary source"]["message"] == (
        "access-log, 60000 requests on shop01 in the last 10 minutes"
    )
    assert {frozenset(one) for one in told.json["findings"]} == {
        frozenset({"what", "level", "message", "remedy", "error"})
    }
    assert "ready" in cli("check").out


def test_check_warns_of_what_should_not_stay(cli, deps):
    """A missing webhook secret refuses every webhook, and is no reason to stop here."""
    deps.workshop.push()
    told = cli("check", "--json")
    assert told.code == 0
    assert any(
        "webhook secret" in one["message"] for one in told.json["findings"] if one["level"] == "warning"
    )


def test_check_names_each_host_problem_with_its_remedy(cli, deps):
    """Unreachable, unknown key, not writable: each host by name."""
    deps.workshop.push()
    deps.fleet.script["check", "shop02"] = Unreachable("shop02: no answer", remedy="is it up?")
    deps.fleet.script["check", "shop03"] = HostKeyRefused("shop03: unknown key", remedy="ssh-keyscan")
    deps.fleet.script["check", "shop04"] = READY | {"writable": "no"}
    told = cli("check", "--json")
    assert (told.code, told.json["ok"]) == (1, False)
    problems = found(told, "problem")
    assert {what: one["error"] for what, one in problems.items()} == {
        "shop: host shop02": "Unreachable",
        "shop: host shop03": "HostKeyRefused",
        "shop: host shop04": "HostError",
    }
    assert all(one["remedy"] for one in problems.values())
    people = cli("check")
    assert "now: is it up?" in people.out
    assert "3 problems; nothing was touched" in people.out


def test_check_groups_hosts_with_the_same_remedy(cli, deps):
    """A fleet that is down is not told host by host."""
    deps.workshop.push()
    for number in (1, 2, 3, 4):
        name = f"shop0{number}"
        deps.fleet.script["check", name] = Unreachable(f"{name}: no answer", remedy="is it up?")
    told = cli("check").out
    assert told.count("is it up?") == 1
    assert "the same for: shop02, shop03, shop04" in told


@pytest.mark.parametrize(
    ("break_it", "code", "what"),
    [
        (lambda deps: setattr(deps.workshop, "down", True), 5, "shop: repository"),
        (lambda deps: setattr(deps.workshop, "branchless", True), 3, "shop: repository"),
    ],
)
def test_the_exit_code_is_the_problems_own(cli, deps, break_it, code, what):
    """One kind of problem gives its code; several give 1."""
    deps.workshop.push()
    break_it(deps)
    told = cli("check", "--json")
    assert told.code == code
    assert what in found(told, "problem")


def test_check_asks_the_canary_for_data(cli, deps, monkeypatch):
    """Only the canary's hosts are asked, and for the last ten minutes."""
    deps.workshop.push()
    asked = []

    def read(_self, target, role, _config, cursor, *, elapsed):
        asked.append((target.name, role, cursor, elapsed))
        raise MetricUnavailable(f"{target.name}: there is no access log", remedy="is canary.log right?")

    monkeypatch.setattr(type(deps.metrics["access-log"]), "read", read)
    told = cli("check", "--json")
    assert asked == [("shop01", "baseline", None, 600.0)]
    assert told.code == 0  # nothing has been released there yet, so nothing can be logged
    assert "there is no access log" in str(found(told, "warning"))
    deps.fleet.script["check", "shop01"] = {
        **deps.fleet.check(a_target("shop01"), timeout_s=1),
        "current": "a" * 40,
    }
    told = cli("check", "--json")
    assert told.code == 1
    assert found(told, "problem")["shop: host shop01"]["error"] == "MetricUnavailable"


def released(deps, name):
    """The host has a release."""
    deps.fleet.script["check", name] = {**deps.fleet.check(a_target(name), timeout_s=1), "current": "a" * 40}


def test_check_warns_of_a_source_without_requests(cli, deps):
    """A canary that nobody asks is never passed: better known before than at its deadline."""
    deps.workshop.push()
    deps.metrics["access-log"].rate = 0
    assert cli("check", "--json").code == 0
    assert "no request" not in cli("check").out  # nothing runs there yet
    released(deps, "shop01")
    told = cli("check", "--json")
    assert told.code == 0
    assert "no request in the last 10 minutes" in str(found(told, "warning")["shop: host shop01"])


def test_check_warns_of_a_probe_that_passes_nothing(build, plain):
    """Without allow_probe_pass each rollout would wait for a person; check says so before the first does."""
    deps = build(canary='source = "probe"\nprobe = "http://localhost:{port}/"')
    deps.workshop.push()
    one = Interval(2.0, 2.0, "shop01", "baseline", True, {"2xx": 4}, "probe")
    deps.metrics["probe"] = SimpleNamespace(read=lambda *_, **__: ([one], ""))
    told = found(plain("check", "--json"), "warning")["shop: canary source"]
    assert "passes none" in told["message"]
    assert "allow_probe_pass = true" in told["remedy"]


def test_check_warns_of_a_probe_that_nobody_answers(build, plain):
    """A wrong address would fail every canary."""
    deps = build(canary='source = "probe"\nprobe = "http://localhost:{port}/"\nallow_probe_pass = true')
    deps.workshop.push()
    one = Interval(2.0, 2.0, "shop01", "baseline", True, {"5xx": 4}, "probe", ("unanswered",))
    deps.metrics["probe"] = SimpleNamespace(read=lambda *_, **__: ([one], ""))
    assert "shop: canary source" in found(plain("check", "--json"), "ok")
    released(deps, "shop01")
    told = found(plain("check", "--json"), "warning")["shop: host shop01"]
    assert "does not answer there" in told["message"]
    assert "canary.probe" in told["remedy"]


def test_a_broker_of_ones_own_must_answer(build, plain, monkeypatch):
    """The embedded one starts with `rollout up`; another one that is down is 5."""
    deps = build()
    deps.workshop.push()
    deps.bell.deaf = True
    assert plain("check").code == 0
    other = build(more='broker = "redis://127.0.0.1:1"\n')
    other.workshop.push()
    other.bell.deaf = True
    assert plain("check").code == 5


def test_a_database_that_is_gone_is_5(cli, deps, monkeypatch):
    """And the rest is looked at all the same."""
    deps.workshop.push()

    def gone(_self):
        raise ServiceUnavailable("the database does not answer", remedy="start it")

    monkeypatch.setattr(type(deps.store), "ready", gone)
    told = cli("check", "--json")
    assert told.code == 5
    assert "shop: hosts" in found(told, "ok")


def test_a_wrong_configuration_is_2_and_tells_all_of_it(plain, tmp_path):
    """Every problem of the file, each with its path."""
    (tmp_path / "rollout.toml").write_text('[server]\nlissen = "x"\n[apps.shop]\nrepository = 1\n')
    told = plain("check", "--json")
    assert told.code == 2
    assert "server.lissen" in told.json["message"]
    assert "apps.shop.repository" in told.json["message"]


def test_a_canary_that_is_not_in_the_fleet_is_a_problem(cli, deps, monkeypatch):
    """What only shows when the fleet is resolved is told like all else."""
    deps.workshop.push()

    def nobody(_self, config):
        return []

    monkeypatch.setattr(type(deps.fleet), "members", nobody)
    told = cli("check", "--json")
    assert told.code == 2
    assert "shop: fleet" in found(told, "problem")


@pytest.mark.parametrize(
    ("told", "level"),
    [
        ({}, None),
        ({"missing": "flock setsid"}, "problem"),
        ({"writable": "no"}, "problem"),
        ({"free_kb": "1000"}, "problem"),
        ({"free_kb": "200000"}, "warning"),
        ({"free_kb": "unknown"}, None),
        ({"sh_ms": "2500"}, "warning"),
    ],
)
def test_what_a_host_tells_is_judged(told, level):
    """Missing tools, a path that cannot be written, no room: problems. Little room, a slow shell: warnings."""
    judged = host_report.report("web001", READY | told, MEMBER)
    assert [one.level for one in judged] == ([] if level is None else [level])
    assert all(one.remedy for one in judged)
