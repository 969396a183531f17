"""Reports of CI servers in webhooks, and JUnit XML: what they come to, and what is refused."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations

import pytest

from rollout.config.app import TestsConfig
from rollout.domain import checks
from rollout.domain.model import Check, CheckState
from rollout.errors import Unreadable
from rollout.store import tables
from rollout.webhooks import PROVIDERS, junit

SHA = "a" * 40
NOW = datetime(2026, 11, 20, 9, 5, tzinfo=UTC)
OURS = {"full_name": "acme/shop", "clone_url": "https://github.com/acme/shop.git"}
PROJECT = {"path_with_namespace": "acme/shop", "git_http_url": "https://gitlab.example.com/acme/shop.git"}


def github(event, body):
    headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": "1-2-3", "Content-Type": "application/json"}
    return PROVIDERS["github"].parse(headers, json.dumps(body).encode())


def gitlab(status, **more):
    attributes = {"sha": SHA, "status": status, "url": "https://gitlab.example.com/1"} | more
    body = {"object_kind": "pipeline", "object_attributes": attributes, "project": PROJECT}
    return PROVIDERS["gitlab"].parse({"Content-Type": "application/json"}, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("success", "success"),
        ("pending", "pending"),
        ("failure", "failure"),
        ("error", "failure"),
        ("?", "failure"),
    ],
)
def test_githubs_statuses(said, state):
    """A status names its check by `context`; a word that nobody knows is nothing good."""
    push = github("status", {"sha": SHA, "context": "ci/unit", "state": said, "repository": OURS})
    assert (push.kind, push.head, push.check.name, push.check.state) == ("report", SHA, "ci/unit", state)
    assert push.full_name == "acme/shop"


@pytest.mark.parametrize("event", ["check_run", "workflow_run", "workflow_job"])
@pytest.mark.parametrize(
    ("status", "conclusion", "state"),
    [
        ("in_progress", None, "pending"),
        ("completed", "success", "success"),
        ("completed", "neutral", "success"),
        ("completed", "skipped", "success"),
        ("completed", "failure", "failure"),
        ("completed", "timed_out", "failure"),
        ("completed", "startup_failure", "failure"),
        ("completed", "a new word", "failure"),
        ("completed", "cancelled", "cancelled"),
        ("completed", "stale", "cancelled"),
        ("completed", "action_required", "cancelled"),
        ("queued", "success", "pending"),
    ],
)
def test_githubs_runs(event, status, conclusion, state):
    """A run counts once it is completed, as for a protected branch: a skipped one is good, a cancelled one neither good nor bad."""
    run = {
        "name": "unit",
        "head_sha": SHA,
        "status": status,
        "conclusion": conclusion,
        "html_url": "https://x/1",
    }
    push = github(event, {event: run, "repository": OURS})
    assert (push.kind, push.head, push.check.name, push.check.state) == ("report", SHA, "unit", state)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("success", "success"),
        ("failed", "failure"),
        ("canceled", "cancelled"),
        ("skipped", "cancelled"),
        ("manual", "cancelled"),
        ("running", "pending"),
        ("waiting_for_resource", "pending"),
        ("scheduled", "pending"),
    ],
)
def test_gitlabs_pipelines(status, state):
    """Its check is called "pipeline", whatever name the pipeline gave itself; one that tested nothing is neither good nor bad."""
    push = gitlab(status, name="my own")
    assert (push.kind, push.head, push.check.name, push.check.state) == ("report", SHA, "pipeline", state)


@pytest.mark.parametrize(
    ("push", "words"),
    [
        (gitlab("canceled"), "was cancelled, run it again"),
        (gitlab("skipped"), "was skipped, run it"),
        (gitlab("manual"), "waits for a person to start its manual job"),
    ],
)
def test_a_run_that_says_nothing_says_why(push, words):
    """What a person can do there is kept with it, and where."""
    assert (push.check.details, push.check.url) == (words, "https://gitlab.example.com/1")


def run(event, **more):
    return github(event, {event: {"name": "unit", "head_sha": SHA, "id": 7} | more, "repository": OURS})


def status(**more):
    return github("status", {"sha": SHA, "context": "unit", "state": "success", "repository": OURS} | more)


EIGHT, NINE = "2026-11-20T08:59:59Z", "2026-11-20T09:00:00Z"
OVER = {"status": "completed", "conclusion": "failure"}
AGAIN = [{"created_at": "2026-11-20 08:00:00 UTC"}, {"created_at": "2026-11-20 10:00:00 +0100"}]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (status(id=8, updated_at=EIGHT), status(id=7, updated_at=NINE)),
        (status(id=9, updated_at=NINE), status(id=10, updated_at="2026-11-20T10:00:00+01:00")),
        (run("check_run", started_at=EIGHT), run("check_run", completed_at=NINE, started_at=EIGHT, **OVER)),
        (run("check_run", completed_at=EIGHT, **OVER), run("check_run", completed_at=NINE, **OVER)),
        (run("workflow_job", started_at=NINE), run("workflow_job", started_at=NINE, completed_at=EIGHT, **OVER)),
        (run("workflow_run", updated_at=EIGHT, **OVER), run("workflow_run", updated_at=NINE, status="queued")),
        (gitlab("running", created_at="2026-11-20 09:59:59 UTC"), gitlab("failed", created_at=NINE, finished_at="2026-11-20 10:00:00 UTC")),
        (gitlab("failed", finished_at="2026-11-20 08:59:59 UTC"), {"finished_at": "2026-11-20 08:59:59 UTC"}),
    ],
)  # fmt: skip
def test_a_report_has_its_place_among_its_servers_words(earlier, later):
    """By the server's clock, in whatever form and zone, then its number, then result after beginning; a run that begins again is later."""
    if isinstance(later, dict):  # retried: the pipeline keeps its times, its new job tells
        body = {"sha": SHA, "status": "running", "url": "https://gitlab.example.com/1"} | later
        body = {"object_kind": "pipeline", "object_attributes": body, "project": PROJECT, "builds": AGAIN}
        later = PROVIDERS["gitlab"].parse({"Content-Type": "application/json"}, json.dumps(body).encode())
    assert "" < earlier.check.stamp < later.check.stamp


def test_a_ci_server_whose_clock_is_behind_githubs_is_heard():
    """A run that GitHub made at nine by its clock is over at eight by the other one, and run again at eight."""
    made = run("check_run", started_at=NINE)
    over = run("check_run", started_at=EIGHT, completed_at=EIGHT, **OVER)
    again = run("check_run", id=8, started_at=EIGHT)
    assert comes_to([made, over]) == "failure"
    assert comes_to([made, over, again]) == "pending"


def test_what_the_longest_report_says_has_room_in_the_store():
    """Whatever numbers, times and names a server says."""
    last = "9999-12-31T23:59:59Z"
    pipeline = gitlab("failed", id=10**20 - 1, finished_at=last, source="push", ref="m" * 2000)
    said = [
        suite(10**15 - 1, id=10**15 - 1, completed_at=last, **OVER),
        status(id=10**20 - 1, updated_at=last),
        pipeline,
    ]
    for column in (tables.checks.c.stamp, tables.checks.c.thing):
        assert max(len(getattr(one.check, column.name)) for one in said) <= column.type.length
    assert {suite(10**15, id=10**15).check.run, suite(10**15).check.thing} == {0, "check_run 0"}


def kept(words):
    """What is known of a check after these words of webhooks, as the store keeps them."""
    known = {}
    for word in (push.check for push in words):
        before = list(known.values())
        late = checks.came_late(word, before)
        known[word.thing, word.run] = (
            checks.begun_by(word, before) if late else checks.timed(word, before, NOW, None)
        )
    return list(known.values())


def comes_to(words):
    """The state of the one check that they are about."""
    (found,) = checks.by_name(kept(words))
    return found.state


GREEN = OVER | {"conclusion": "success"}
T0, T30, T50, T60, T90 = (f"2026-11-20T09:00:{second}Z" for second in ("00", "30", "50", "51", "59"))


def suite(number, **more):
    """A run of another CI server's suite."""
    return run("check_run", check_suite={"id": number}, **more)


def action(number, began, ended=None, *, suite=4, good=False):
    """The check run of a job of Actions."""
    over = {} if ended is None else (GREEN if good else OVER)
    its = {"app": {"slug": "github-actions"}, "check_suite": {"id": suite}}
    return run("check_run", id=number, started_at=began, completed_at=ended, **its, **over)


def job(number, attempt, ended=None, *, good=False):
    """The same job by its own event, which counts the attempts."""
    over = {} if ended is None else (GREEN if good else OVER)
    return run(
        "workflow_job", id=number, run_id=9, run_attempt=attempt, started_at=T0, completed_at=ended, **over
    )


RED = [action(900, T0, T50), job(900, 1, T50)]  # both tell of it
STATUS = status(updated_at=T30, state="failure")
PIPELINE = gitlab("failed", id=1, ref="main", source="push", finished_at=T30)


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ([suite(5, id=7, completed_at=T30, **OVER), suite(6, id=8, completed_at=T50, **GREEN)], "failure"),
        ([action(7, T0, T30, suite=5), action(8, T50, T60, suite=6, good=True)], "failure"),
        ([STATUS, suite(5, completed_at=T50, **GREEN)], "failure"),
        ([STATUS, status(updated_at=T50)], "success"),
        ([run("workflow_run", updated_at=T30, **OVER), job(900, 1, T50, good=True)], "failure"),
        ([run("workflow_run", updated_at=T30, **OVER), run("workflow_run", updated_at=T50, **GREEN)], "success"),
        ([run("workflow_run", updated_at=T30, **OVER), run("workflow_run", updated_at=T50, id=8, **GREEN)], "failure"),
        ([status(updated_at=T50), suite(5, started_at=T30)], "pending"),
        ([status(updated_at=T50), suite(5, completed_at=T30, **OVER | {"conclusion": "cancelled"})], "cancelled"),
        ([PIPELINE, gitlab("success", id=2, ref="main", source="push", finished_at=T50)], "success"),
        ([PIPELINE, gitlab("success", id=2, ref="main", source="schedule", finished_at=T50)], "failure"),
    ],
)  # fmt: skip
def test_a_check_is_as_good_as_the_worst_that_anything_says_of_it(words, state):
    """Its last word each: a green of another suite or kind takes no red back, in whatever order they come."""
    assert {comes_to(order) for order in permutations(words)} == {state}


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ([*RED, action(950, T60), action(950, T60, T90, good=True), job(950, 2, T90, good=True)], "success"),
        ([*RED, action(950, T60, T90, good=True), job(950, 2, T90, good=True)], "failure"),  # nobody told when it began
        ([*RED, job(950, 2, T90, good=True)], "failure"),
        ([*RED, action(950, T60)], "failure"),
        ([RED[0], action(950, T60)], "pending"),
        ([RED[1], job(950, 2)], "pending"),
        ([suite(5, id=7, completed_at=T50, **OVER), suite(5, id=8, completed_at=T30, **GREEN)], "success"),
        ([suite(5, id=7, completed_at=T30, **GREEN), suite(5, id=8, completed_at=T50, **OVER)], "failure"),
    ],
)  # fmt: skip
def test_a_run_takes_the_place_of_the_one_that_it_repeats(words, state):
    """GitHub tells of a job of Actions twice where both events are asked for: then both have to be good again."""
    assert {comes_to(order) for order in permutations(words)} == {state}


@pytest.mark.parametrize(
    ("words", "state"),
    [
        ([action(900, T0), action(901, T0), action(901, T0, T30, good=True), action(900, T0, T50)], "failure"),
        ([job(900, 1), job(901, 1), job(901, 1, T30, good=True), job(900, 1, T50)], "failure"),
        ([action(900, T0, T50), action(901, T0, T30, good=True), action(950, T60), action(950, T60, T90, good=True)], "success"),
        ([action(900, T0, T30), action(901, T0), action(901, T50, T60, good=True)], "failure"),  # it waited for a runner
        ([action(900, T0, T30), action(901, T50, T60, good=True)], "failure"),  # the same, and its beginning was lost
        ([job(900, 1, T50), job(901, 1, T30, good=True), job(950, 2, T90, good=True)], "success"),
        ([action(900, T0, T50), action(901, T0, T30, good=True), action(950, T60), action(950, T60, T90, good=True), action(951, T60)], "pending"),
        ([action(900, T0, T50), action(901, T0, T30), action(950, T60, T90, good=True)], "failure"),
        ([job(900, 1, T50), job(901, 1, T30), job(950, 2, T90, good=True)], "failure"),
        ([job(900, 1, T50), job(901, 1, T30), job(950, 2, T90, good=True), job(951, 2, T90, good=True)], "success"),
        ([job(901, 1, T30, good=True), job(900, 1, T50), job(950, 2, T60), job(960, 3, T90, good=True)], "success"),
    ],
)  # fmt: skip
def test_jobs_of_one_workflow_that_have_one_name_all_count(words, state):
    """Of a matrix, say: a red one is not overtaken by the green one with the higher number, and run again one takes one's place."""
    assert {comes_to(order) for order in permutations(words)} == {state}


@pytest.mark.parametrize("stamp", ["{time} {number} 1", "run 4 {number} 1 {time}"])
def test_a_word_that_an_older_version_had_overtaken_is_late_when_it_comes_again(stamp):
    """It said a red later under that name: the green of before is sent again after the upgrade; what is newer takes the red's place."""
    time = STATUS.check.stamp.split()[0]
    red = Check(
        "unit", CheckState.FAILURE, source="github", stamp=stamp.format(time=time, number=f"{7:020d}")
    )
    early, late = (status(updated_at=at).check for at in (T0, T50))
    job_then, job_now = (job(900, 1, at, good=True).check for at in (T0, T50))
    assert [checks.came_late(one, [red]) for one in (early, job_then, late, job_now)] == [
        True,
        True,
        False,
        False,
    ]
    assert not checks.came_late(replace(early, source="gitlab"), [red])
    assert [one.state for one in checks.by_name([red, late])] == [CheckState.SUCCESS]


def test_who_says_so_is_named_where_several_speak():
    """With its kind, and with its suite or branch where a kind has several."""
    (found,) = checks.by_name(kept([*RED, STATUS, suite(5, completed_at=T50, **GREEN)]))
    assert found.source == "github check_run 4, github status, github workflow_job"
    nightly = gitlab("success", id=2, ref="main", source="schedule", finished_at=T50)
    (found,) = checks.by_name(kept([PIPELINE, nightly]))
    assert found.source == "gitlab pipeline push main"
    (alone,) = checks.by_name(kept([STATUS]))
    assert (alone.source, found.of_several, alone.of_several) == ("github", True, False)


@pytest.mark.parametrize("at", [None, 7, "", "yesterday", "2026-13-41", "0000-00-00T00:00:00Z"])
def test_a_report_without_a_time_has_no_place(at):
    """It is taken as it comes."""
    assert status(id=7, updated_at=at).check.stamp == ""


def test_a_report_without_its_commit_is_unreadable():
    """Nothing is guessed."""
    with pytest.raises(Unreadable):
        gitlab("success", sha=None)
    with pytest.raises(Unreadable):
        github("status", {"sha": SHA, "state": "success", "repository": OURS})


GOOD = b'<testsuites><testsuite><testcase classname="a" name="b"/><testcase name="c"><skipped/></testcase></testsuite></testsuites>'
BAD = b'<testsuite><testcase classname="a" name="b"><failure message="1 is not 2"/><error/></testcase><testcase name="c"/></testsuite>'


def test_junit_is_counted_and_failed_cases_are_named():
    """A case counts once, however much is wrong with it."""
    assert junit.read(GOOD) == (CheckState.SUCCESS, "0 of 2 test cases failed, 1 skipped")
    assert junit.read(BAD) == (CheckState.FAILURE, "1 of 2 test cases failed, 0 skipped\na.b: 1 is not 2")


def test_junit_whose_totals_count_failures_has_failed():
    """Whatever its cases say: a word for "good" is not made of a report that contradicts itself."""
    said = b'<testsuites failures="%s" errors="0"><testsuite errors=""><testcase name="a"/></testsuite></testsuites>'
    assert junit.read(said % b"0")[0] is CheckState.SUCCESS
    state, told = junit.read(said % b"10")
    assert (state, told.splitlines()[1]) == (CheckState.FAILURE, "the totals of its suites count some")


def test_a_long_junit_report_is_cut():
    """However many cases fail, and whatever they say, what is kept is bounded."""
    case = b'<testcase name="x"><failure message="' + b"y" * 900 + b'"/></testcase>'
    _, told = junit.read(b"<s>" + case * 500 + b"</s>")
    assert len(told) < (junit.LONGEST + 1) * (junit.MOST_NAMED + 2)
    assert told.endswith("and 450 more")


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><s><testcase name="&b;"/></s>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><s><testcase/></s>',
        b"<s><testcase></s>",
        b"not xml",
        b"",
        b"<s/>",
    ],
)
def test_junit_that_is_a_trap_or_empty_is_refused(body):
    """Entities are refused with the type that declares them; a report without cases is no success."""
    with pytest.raises(Unreadable):
        junit.read(body)


@pytest.mark.parametrize("first", [GREEN, OVER])
def test_of_two_results_of_one_second_the_worse_counts(first):
    """A run that is told as a success and as a failure with the same time: which came last nobody knows."""
    second = OVER if first is GREEN else GREEN
    words = [run("check_run", completed_at=NINE, **its) for its in (first, second)]
    assert comes_to(words) == "failure"


@pytest.mark.parametrize("event", ["status", "check_run", "workflow_job", "workflow_run"])
@pytest.mark.parametrize("name", ["\U0001f469\u200d\U0001f4bb unit", "unit\u200b", "soft\u00adhyphen"])
def test_a_check_is_heard_under_every_name_that_can_be_required(event, name):
    """A joined emoji, or what is not seen, makes no report unreadable: the check would be waited for in vain."""
    assert TestsConfig(source="external", required=(name,)).required == (name,)
    push = status(context=name) if event == "status" else run(event, name=name)
    assert push.check.name == name


@pytest.mark.parametrize("name", ["", "tab\tname", "\ud800", 7])
def test_what_is_no_name_of_a_check_is_refused(name):
    """It can be required by nobody, and not be kept."""
    with pytest.raises(Unreadable):
        run("check_run", name=name)
