"""`rollout judge FILE`."""

import json
from dataclasses import asdict, replace

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.support.traces import on_canary, story


@pytest.fixture
def write(tmp_path):
    """Writes intervals as JSON lines, the path of the file."""

    def write(intervals):
        file = tmp_path / "intervals.jsonl"
        file.write_text("".join(json.dumps(asdict(one)) + "\n" for one in intervals))
        return file

    return write


def test_a_verdict_as_json_and_when_it_fell(plain, write):
    """Status, reason, explanation, t and evidence; no rollout.toml is needed."""
    told = plain("judge", write(story(rate=on_canary(1.0), until=60, history=100)), "--json")
    assert told.code == 0
    assert set(told.json) == {"status", "reason", "explanation", "t", "evidence"}
    assert (told.json["status"], told.json["reason"], told.json["t"]) == ("fail", "outage", 6.0)
    assert told.json["evidence"]["requests"] > 500
    assert told.json["explanation"].startswith("web0 answered 5xx to")


def test_a_verdict_for_people(plain, write):
    """Word, reason and time in the first line, then the sentence, then the numbers."""
    lines = plain("judge", write(story(until=80, rps=1000))).out.splitlines()
    assert lines[0] == "pass: no harm found, after 60 s"
    assert "passed after 60 s" in lines[1]
    assert lines[2].startswith("evidence: L ")


def test_what_is_undecided_at_the_end_is_inconclusive(plain, write):
    """At its last t, with the reason that holds."""
    told = plain("judge", write(story(until=40, history=20)), "--json").json
    assert (told["status"], told["reason"], told["t"]) == ("inconclusive", "not enough evidence", 40.0)


def test_an_empty_file_is_no_traffic(plain, write):
    """Nothing at all is not a pass."""
    told = plain("judge", write([]), "--json").json
    assert (told["status"], told["reason"], told["t"]) == ("inconclusive", "no traffic", 0.0)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ((), "inconclusive"),
        (("--bake", "20s"), "pass"),
        (("--bake", "20", "--deadline", "40s"), "pass"),
        (("--bake", "20s", "--minimum-good", "99.9%"), "inconclusive"),
        (("--bake", "20s", "--minimum-good", "0.9"), "pass"),
        (("--bake", "20s", "--margin", "0%"), "inconclusive"),
        (("--bake", "20s", "--good", "5xx"), "inconclusive"),
        (("--canary", "web1"), "inconclusive"),
    ],
)
def test_policy_is_what_the_options_say(plain, write, options, status):
    """Of the same 40 s."""
    file = write(story(until=40, rate=0.002, rps=3000, history=100))
    assert plain("judge", file, "--json", *options).json["status"] == status


def test_hosts_named_as_canary_are_the_canary(plain, write):
    """Whatever the file says; comma list and repetition are the same."""
    file = write(story(rate=on_canary(1.0, canaries=("web3",)), until=60))
    assert plain("judge", file, "--json").json["status"] == "inconclusive"
    for words in (("--canary", "web3,web2"), ("--canary", "web3", "--canary", "web2")):
        told = plain("judge", file, "--json", *words).json
        assert told["status"] == "fail"
        assert told["explanation"].startswith("web2, web3 answered")


def test_order_of_lines_does_not_matter(plain, write):
    """The same intervals, the same verdict."""
    intervals = story(rate=on_canary(0.1), until=60, history=60)
    sorted_by_host = sorted(intervals, key=lambda one: one.host)
    assert (
        plain("judge", write(intervals), "--json").json
        == plain("judge", write(sorted_by_host), "--json").json
    )


GOOD = {"t": 2, "host": "web0", "role": "canary", "counts": {"2xx": 1}}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 3: this is no JSON"),
        ("[]", "line 3: an interval: found [], expected an object"),
        (GOOD | {"t": "2"}, "line 3: t: found '2', expected a number of seconds"),
        (GOOD | {"t": None}, "line 3: t: found nothing"),
        (GOOD | {"dt": 0}, "line 3: dt: found 0, expected a number of seconds from 0.001 to 86,400"),
        (GOOD | {"host": ""}, "line 3: host: found '', expected a name"),
        (GOOD | {"role": "king"}, """line 3: role: found 'king', expected "canary" or "baseline\""""),
        (GOOD | {"observed": 1}, "line 3: observed: found 1, expected true or false"),
        (GOOD | {"counts": None}, "line 3: counts: found nothing"),
        (GOOD | {"counts": {"2xx": -1}}, "line 3: counts.2xx: found -1, expected a number of requests"),
        (GOOD | {"counts": {"2xx": 1.5}}, "line 3: counts.2xx: found 1.5"),
        (GOOD | {"counts": {"ok": 1}}, "line 3: counts: found 'ok', expected a class"),
        (GOOD | {"source": "guess"}, "line 3: source: found 'guess'"),
        ('{"t": NaN}', "line 3: t: found nan"),
        ('{"t": 1, "dt": 1e999}', "line 3: dt: found inf"),
        ('{"t": -Infinity}', "line 3: t: found -inf"),
        (
            GOOD | {"t": 1e300},
            "line 3: t: found 1e+300, expected a number of seconds from -100,000,000 to 100,000,000",
        ),
        (f'{{"t": {"9" * 400}}}', "line 3: t: found inf, expected a number of seconds"),
        (f'{{"t": {"9" * 5000}}}', "line 3: t: found inf, expected a number of seconds"),
        (f'{{"t": {"9" * 399}}}', "line 3: t: found 9999"),
        (GOOD | {"t": 100_000_001}, "line 3: t: found 100000001"),
        (GOOD | {"dt": 86_401}, "line 3: dt: found 86401"),
        (
            GOOD | {"counts": {"2xx": 1e308}},
            "counts.2xx: found 1e+308, expected a number of requests, 1,000,000,000,000 at most",
        ),
        (GOOD | {"counts": {"2xx": 10**12 + 1}}, "counts.2xx: found 1000000000001"),
        (json.dumps(GOOD).replace('"2xx": 1', '"2xx": Infinity'), "counts.2xx: found inf"),
        (json.dumps(GOOD).replace('"2xx": 1', f'"2xx": {"9" * 400}'), "counts.2xx: found inf"),
        (GOOD | {"flags": 5}, """line 3: flags: found 5, expected a list such as ["late"]"""),
        (GOOD | {"flags": "late"}, "line 3: flags: found 'late'"),
        (GOOD | {"flags": [5]}, "line 3: flags: found [5]"),
        (GOOD | {"host": "\ud800"}, "line 3: host: found"),
    ],
)
def test_a_bad_line_is_named(plain, tmp_path, line, told):
    """With its number, what was found and what was expected; exit code 2."""
    file = tmp_path / "intervals.jsonl"
    bad = line if isinstance(line, str) else json.dumps(line)
    file.write_text(f"{json.dumps(GOOD)}\n\n{bad}\n")
    result = plain("judge", file)
    assert (result.code, result.out) == (2, "")
    assert told in result.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--canary", "web7"), "--canary: web7 is not in the file; known are web0"),
        (("--bake", "soon"), "--bake: found 'soon', expected a duration"),
        (("--minimum-good", "much"), "--minimum-good: found 'much', expected a share"),
        (("--minimum-good", "195%"), "--minimum-good: found '195%'"),
        (("--margin", "nan"), "--margin: found 'nan'"),
        (("--bake", "11m"), "--deadline is shorter than --bake"),
        (("--deadline", "0s", "--bake", "0s"), "--deadline: found '0s'"),
        (("--good", "9xx"), "--good: found '9xx', expected classes such as"),
        (("--good", ""), "--good: found '', expected classes such as"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(plain, write, words, told):
    """With what was found and what was expected."""
    result = plain("judge", write(story(until=2, history=0, baseline=())), *words)
    assert (result.code, result.out) == (2, "")
    assert told in result.err


def test_a_file_that_is_not_there_is_named(plain, tmp_path):
    """And one that is no text."""
    assert "no-file: No such file" in plain("judge", "no-file").err
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "this is no text" in plain("judge", tmp_path / "binary").err


def test_fields_have_defaults_and_unknown_ones_are_passed_over(plain, tmp_path):
    """A line needs t, host, role and counts; counts may be missing where nothing was observed."""
    file = tmp_path / "intervals.jsonl"
    unseen = {"t": 4, "host": "web0", "role": "canary", "observed": False}
    file.write_text(f"{json.dumps(GOOD | {'note': 'mine', 'flags': ['late']})}\n{json.dumps(unseen)}\n")
    assert plain("judge", file, "--json").json["evidence"]["requests"] == 1.0


def test_a_byte_order_mark_is_passed_over(plain, tmp_path):
    """Some editors put one before the first line."""
    file = tmp_path / "intervals.jsonl"
    file.write_text(json.dumps(GOOD), encoding="utf-8-sig")
    assert plain("judge", file, "--json").json["evidence"]["requests"] == 1.0


def test_answers_that_are_none_are_dropped(plain, write):
    """1xx in a file fail nobody, neither as a class nor as a status: no source counts them."""
    intervals = story(rate=0.0, until=60, rps=100)
    more = [replace(one, counts={**one.counts, "1xx": 500, "101": 500}) for one in intervals]
    told, of_more = (plain("judge", write(one), "--json").json for one in (intervals, more))
    assert of_more == told
    only = [replace(one, counts={"1xx": 500}) for one in intervals]
    assert plain("judge", write(only), "--json").json["reason"] == "no traffic"


NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**12, 10**400, -(10**8), 10**8, 86_400, 0.001, 1e300, 1e308, 2, 0]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
COUNTS = st.dictionaries(
    st.sampled_from(["1xx", "2xx", "3xx", "404", "499", "5xx", "6xx", ""]), NUMBERS | VALUES, max_size=3
)
LINES = st.fixed_dictionaries(
    {},
    optional={
        "t": st.sampled_from([2, 4]) | NUMBERS | VALUES,
        "dt": st.sampled_from([2, 4]) | NUMBERS | VALUES,
        "host": st.sampled_from(["web0", "web1"]) | VALUES,
        "role": st.sampled_from(["canary", "baseline"]) | VALUES,
        "observed": st.booleans() | VALUES,
        "counts": COUNTS | VALUES,
        "source": st.sampled_from(["log", "probe"]) | VALUES,
        "flags": st.lists(st.text(max_size=3), max_size=2) | VALUES,
    },
)
BOUNDED = st.builds(
    lambda t, dt, host, count, bad, source: {
        "t": t, "dt": dt, "host": host, "role": "canary" if host == "web0" else "baseline",
        "counts": {"2xx": count, "5xx": bad}, "source": source,
    },
    st.floats(-(10**8), 10**8) | st.integers(-20, 200), st.floats(0.001, 86_400) | st.just(2),
    st.sampled_from(["web0", "web1"]), st.integers(0, 10**12), st.integers(0, 10**12), st.sampled_from(["log", "probe"]),
)  # fmt: skip


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(lines=st.lists(LINES, max_size=3) | st.lists(BOUNDED, max_size=12))
def test_no_file_is_a_bug(plain, tmp_path, lines):
    """Whatever JSON a line has in whatever key, and whatever numbers within the limits: a verdict, or what is wrong with the file."""
    file = tmp_path / "intervals.jsonl"
    file.write_text("".join(json.dumps(GOOD | line) + "\n" for line in lines))
    told = plain("judge", file, "--json")
    assert told.code in {0, 2}, told
    if told.code == 0:
        assert told.json["status"] in {"inconclusive", "fail", "pass"}
    else:
        assert "intervals.jsonl, line " in told.out + told.err
