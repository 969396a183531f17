"""Reports of CI servers in webhooks, and JUnit XML: what they come to, and what is refused."""

import json

import pytest

from rollout.domain import checks
from rollout.domain.model import CheckState
from rollout.errors import Unreadable
from rollout.store import tables
from rollout.webhooks import PROVIDERS, junit

SHA = "a" * 40
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


EIGHT, NINE, LATER = "2026-11-20T08:59:59Z", "2026-11-20T09:00:00Z", "2026-11-20T09:00:40Z"
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


@pytest.mark.parametrize("event", ["check_run", "workflow_job"])
def test_a_ci_server_whose_clock_is_behind_githubs_is_heard(event):
    """A run that GitHub made at nine by its clock is over at eight by the other one, and run again at eight."""
    made, over = run(event, started_at=NINE), run(event, started_at=EIGHT, completed_at=EIGHT, **OVER)
    again = run(event, id=8, started_at=EIGHT)
    assert made.check.stamp < over.check.stamp < again.check.stamp


def test_the_longest_stamp_has_room_in_the_store():
    """Whatever numbers a server says."""
    most = {"number": 10**15 - 1, "id": 10**20 - 1}
    found = suite(**most, completed_at="9999-12-31T23:59:59Z", **OVER).check.stamp
    assert len(found) == tables.checks.c.stamp.type.length
    more = {name: number + 1 for name, number in most.items()}
    assert len(suite(**more, completed_at=NINE, **OVER).check.stamp) < len(found)


GREEN = OVER | {"conclusion": "success"}
JOB = run("workflow_job", run_id=4, started_at=EIGHT, completed_at=NINE, **GREEN)


def suite(number, **more):
    return run("check_run", check_suite={"id": number}, **more)


@pytest.mark.parametrize(
    ("before", "then", "news"),
    [
        (JOB, run("workflow_run", updated_at=LATER, **OVER), True),
        (JOB, run("workflow_run", updated_at=NINE, **OVER), True),
        (JOB, run("workflow_run", updated_at=EIGHT, status="in_progress"), False),
        (JOB, run("workflow_run", updated_at=NINE, status="in_progress"), False),
        (status(updated_at=NINE, state="pending"), JOB, True),
        (suite(6, started_at=NINE), JOB, True),
        (run("workflow_run", updated_at=NINE, **OVER), JOB, False),
        (run("workflow_run", updated_at=LATER, **OVER), JOB, False),
        (run("workflow_run", updated_at=EIGHT, status="in_progress"), JOB, True),
        (run("check_run", completed_at=NINE, **GREEN), status(updated_at=LATER, state="failure"), True),
        (status(updated_at=NINE), run("check_run", completed_at=LATER, **OVER), True),
        (status(updated_at=LATER), run("check_run", completed_at=NINE, **OVER), False),
        (JOB, run("workflow_job", run_id=5, id=6, completed_at=LATER, **OVER), True),
        (JOB, run("workflow_job", run_id=5, id=8, completed_at=EIGHT, **OVER), False),
        (suite(6, id=8, completed_at=NINE, **GREEN), suite(5, id=7, completed_at=LATER, **OVER), True),
        (suite(5, id=8, completed_at=NINE, **GREEN), suite(5, id=7, completed_at=LATER, **OVER), False),
    ],
)
def test_what_several_say_under_one_name_goes_by_the_time(before, then, news):
    """A workflow is often called as one of its jobs is, or as another one's: a number of the one is not above the other's red."""
    assert checks.came_late(then.check, [before.check]) is not news


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
