"""The page: what runs, what is next, what was, and why nothing is started. Hostile text stays text."""

import base64
import hashlib
import itertools
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from rollout.domain.states import CommitState, HostState, RolloutState
from rollout.services import bars, explaining, freezes, intake, stopping, verifying
from rollout.store.store import Transaction
from rollout.web.page import bar
from rollout.web.plain import cleaned, plain
from tests.support.branch import commit_of
from tests.support.web import BEARER

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}\x1b[31m\x00\u202edlrow\ud800"
TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "small", "section", "article", "p", "a", "i",
    "span", "code", "table", "tr", "td", "svg", "rect", "ul", "li",
}  # fmt: skip


class Reader(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.words = set(), set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def read(client):
    """The page."""
    answer = client.get("/", BEARER)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer, Reader(answer.text)


def test_what_is_planned_ahead_says_what_it_waits_for(world, client):
    """Both rollouts are there, the one that waits with the number of the other."""
    world.push()
    world.run(until=lambda: world.newest() and world.newest().state == "fanning_out")
    world.push()
    world.run(until=lambda: "begins when" in read(client)[1].text, seconds=60)
    _, page = read(client)
    assert "planned ahead: begins when rollout 1 is done" in page.text
    assert "hosts done · planned " in page.text


def test_an_empty_store_says_why_nothing_is_started(client):
    """The reason is on the page, in words."""
    _, page = read(client)
    assert (
        "Nothing is being rolled out. Next nothing was released yet, and no commit of branch main is known"
        in page.text
    )


def test_it_shows_what_runs_what_is_next_and_what_was(world, client, halted):
    """A halted rollout with its hosts as a bar, the commit behind it, the one before it."""
    world.push("the third")
    answer, page = read(client)
    before, after = page.text.split("Next")
    assert "halted" in before
    assert "the second" in before
    assert f"rollout show {halted.id}" in before
    assert "2 failed" in before
    assert "the third" in after
    assert "the first" in after.split("Last")[1]
    assert answer.text.count("<rect") == len(re.findall(r"■", answer.text))


def test_a_freeze_is_shown_also_beside_a_rollout(world, client, halted):
    """Until when, by whom and why: while something is under way, and as the reason why nothing is."""
    freezes.freeze(world.config.app("shop"), world.deps, who="ann", why="the <sale>", until=None)
    assert re.search(
        r"Next a person decides about rollout \d+ first: .* frozen by ann: the <sale>", read(client)[1].text
    )
    stopping.stop(halted.id, world.deps, who="ann", why="-")
    world.run(seconds=120)
    assert "Nothing is being rolled out. Next frozen by ann: the <sale>" in read(client)[1].text


@pytest.mark.parametrize("state", [None, RolloutState.EVALUATING_CANARY, RolloutState.DONE])
def test_next_is_what_the_command_says(world, client, monkeypatch, state):
    """Word for word as `rollout status`, with its time: before anything, behind a rollout that is under way, and afterwards."""
    if state is not None:
        world.push("the first")
        world.run(until=lambda: world.newest() is not None and world.newest().state is state)
    if state is RolloutState.EVALUATING_CANARY:
        world.push("the second")
    now = datetime.now(UTC)
    monkeypatch.setattr(Transaction, "today", lambda _self: now)
    with world.store.reading() as tx:
        app = world.config.app("shop")
        told = explaining.sentence(app, explaining.coming(tx, app), now)
    assert f"Next {told}" in read(client)[1].text
    assert ("at about" in told) == (state is RolloutState.EVALUATING_CANARY)


def test_an_app_whose_table_is_wrong_is_shown_as_such(world, serve):
    """It is not gone: what a person has to mend stands where people look."""
    config = replace(world.deps.config, left_out={"blog": "1 to mend"})
    page = read(serve(replace(world.deps, config=config)))[1]
    assert "blog Nothing begins: its table in rollout.toml is wrong." in page.text


@pytest.mark.parametrize("where", ["wrong", "gone"])
def test_what_is_under_way_of_an_app_that_begins_nothing_is_shown(world, halted, serve, where):
    """It goes on all the same, and may wait for a person."""
    config = replace(world.deps.config, apps={}, left_out={"shop": "1 to mend"} if where == "wrong" else {})
    page = read(serve(replace(world.deps, config=config)))[1]
    assert f"shop Rollout {halted.id} halted" in page.text
    why = "its table in rollout.toml is wrong" if where == "wrong" else "rollout.toml has it no more"
    assert (
        f"Waits for a person: rollout show {halted.id}" in page.text.partition(f"Nothing begins: {why}.")[0]
    )


def test_hosts_that_are_behind_are_shown_with_the_reason(world, client):
    """As `rollout status` and `hosts` tell it: what a person has to mend stands where people look."""
    world.push()
    world.settle()
    page = read(client)[1]
    assert "Behind" not in page.text
    world.fleet.hosts["web02"].lose_disk()
    world.fleet.hosts["web03"].lose_disk()
    verifying.verify("shop", world.deps)
    freezes.freeze(world.config.app("shop"), world.deps, who="ann", why="the <sale>", until=None)
    page = read(client)[1]
    assert "Behind web02 waits: frozen by ann: the <sale> web03 waits: frozen" in page.text
    assert page.tags <= TAGS


@pytest.mark.parametrize("where", ["subject", "author", "reason", "host"])
def test_hostile_text_stays_text(world, client, halted, where):
    """Commit, author, reason, host: no tag of theirs, no control character, no turned writing reaches the browser."""
    hostile = HOSTILE.replace("\ud800", "").replace("\x00", "")  # these two cannot be stored at all
    with world.store.transaction() as tx:
        rollout = tx.rollouts.lock(halted.id)
        commit = tx.commits.get("shop", rollout.commit)
        if where == "reason":
            tx.rollouts.update(rollout, reason=hostile, canary_reason=hostile)
        elif where == "host":
            tx.rollouts.update(rollout, unconfirmed=(hostile,), requested_by=hostile)
        else:
            tx.commits.update(commit, **{where: hostile})
    answer, page = read(client)
    assert "<script>alert(1)</script>" in page.text
    assert page.tags <= TAGS
    assert not {name for name in page.attributes if name.startswith("on") or name == "style"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", answer.text)
    assert "{{7*7}}" in page.text


def test_the_policy_allows_the_one_style_sheet_and_nothing_else(client):
    """No script, no picture, no form, no frame; the digest is the style sheet's own."""
    answer, _ = read(client)
    style = re.search("<style>(.*)</style>", answer.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    for part in ("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert part in policy
    assert "<script" not in answer.text
    assert re.search('<meta http-equiv="refresh" content="[0-9]+">', answer.text)


def test_very_long_text_is_cut(world, client):
    """A subject of a megabyte does not make a page of a megabyte."""
    world.workshop.push("x" * 1_000_000)
    intake.read_branch(world.deps.config.app("shop"), world.deps, who="test", why="pushed")
    answer, _ = read(client)
    assert len(answer.body) < 20_000


def test_a_bar_is_shown_beside_what_the_tests_say(world, client, halted):
    """A red commit that a person has barred is red, and barred: both reasons stand in its row."""
    red = world.workshop.push(fails=True)
    intake.read_branch(world.deps.config.app("shop"), world.deps, who="test", why="pushed")
    world.run(until=lambda: commit_of(world, red).state is CommitState.FAILED)
    bars.bar("shop", red, world.deps, who="ann", why="it deletes <customers>")
    assert f"barred: it deletes <customers>; {commit_of(world, red).reason}" in read(client)[1].text


def test_many_commits_are_a_short_list(world, client, halted):
    """The first ones are shown, the others counted."""
    for number in range(60):
        world.workshop.push(f"change {number}")
    intake.read_branch(world.deps.config.app("shop"), world.deps, who="test", why="pushed")
    _, page = read(client)
    assert "and 50 more" in page.text


def test_every_app_has_its_section(world, serve):
    """Apps are shown in the order of the configuration."""
    shop = world.deps.config.app("shop")
    apps = {"shop": shop, "admin": shop.model_copy(update={"name": "admin"})}
    client = serve(replace(world.deps, config=replace(world.deps.config, apps=apps)))
    assert re.findall("<h2>(.*)</h2>", client.get("/", BEARER).text) == ["shop", "admin"]


def test_the_bar_is_as_wide_as_the_fleet():
    """The pieces touch each other and fill the bar; states without hosts have none."""
    counts = dict.fromkeys(map(str, HostState), 0) | {"total": 7, "done": 3, "failed": 1, "pending": 3}
    pieces = list(bar(counts))
    assert [piece.state for piece in pieces] == ["done", "pending", "failed"]
    assert pieces[0].start == 0
    assert sum(piece.width for piece in pieces) == pytest.approx(100, abs=0.01)
    for one, following in itertools.pairwise(pieces):
        assert one.start + one.width == pytest.approx(following.start, abs=0.01)
    assert list(bar(dict.fromkeys(map(str, HostState), 0) | {"total": 0})) == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain", "plain"),
        ("größer — 日本 🎉", "größer — 日本 🎉"),
        ("a\x1b[31mb\x1b]0;t\x07", "a[31mb]0;t"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("\x9b31m", "31m"),
        ("\u202eabc\u2066\u200b\ufeff", "abc"),
        ("half \ud83d", "half "),
        ("line\u2028end", "lineend"),
    ],
)
def test_text_is_plain(given, shown):
    """What acts on a terminal or a page goes, what is seen stays."""
    assert plain(given) == shown


def test_json_is_cleaned_all_the_way_down():
    """Keys and values, lists and tables; numbers and null stay as they are."""
    assert cleaned({"a\x1b": ["b\x1b", {"c": ("\x1b",)}, 1, 2.5, None, True]}) == {
        "a": ["b", {"c": [""]}, 1, 2.5, None, True]
    }
