"""A store of before 0021: some things are kept in the middle of others, and a commit that has failed is still wanted out."""

import pytest
from sqlalchemy import text

from rollout.services import intake, notices
from tests.support.older import columns_of_0020, commits_of_0021
from tests.support.world import World

OLD = (
    ("nobody has taken it", "what\nNext: 7"),
    ("two have not", "what\nNext: 7\n\x1e2 10"),
    ("it is no such line", "what \x1e2 of it"),
)


@pytest.fixture
def world(tmp_path, monkeypatch, database):
    made = World(tmp_path, monkeypatch, hosts=1, url=database)
    yield made
    made.store.close()


def migrated(world, *statements):
    """Anew, after these statements on what an older version left."""
    with world.store.transaction() as tx:
        commits_of_0021(tx.connection)
        columns_of_0020(tx.connection)
        for statement in statements:
            tx.connection.execute(text(statement))
        tx.connection.execute(text("UPDATE alembic_version SET version_num = '0020'"))
    world.store.prepare()


def test_who_had_not_taken_a_notice_is_still_tried_by_itself(world):
    """Its text is what people were told; one that says such a thing itself stays as it is."""
    with world.store.transaction() as tx:
        for title, body in OLD:
            tx.notices.add("shop", None, title, body)
    migrated(world)
    with world.store.transaction() as tx:
        found = {one.title: (one.body, one.owed) for one in tx.notices.claim(60.0)}
    assert found == {
        "nobody has taken it": ("what\nNext: 7", None),
        "two have not": ("what\nNext: 7", {2, 10}),
        "it is no such line": ("what \x1e2 of it", None),
    }


@pytest.mark.parametrize(("kept", "silent"), [(3, 3), (-4, 0), (0, 0)])
def test_tries_in_vain_are_counted_on(world, kept, silent):
    """As many as there were, and whether the server answered the last one."""
    with world.store.transaction() as tx:
        tx.apps.ensure("shop")
    migrated(world, f"UPDATE apps SET poll_failures = {kept}")
    with world.store.reading() as tx:
        assert (tx.apps.poll_failures("shop"), tx.apps.poll_failures("shop", silent=True)) == (
            abs(kept),
            silent,
        )


def test_the_wish_for_what_had_failed_is_withdrawn(world):
    """Who wanted it is told, the log has it, and what was not tested yet is wanted as before."""
    bad = world.push(fails=True)
    world.settle()
    waits = world.workshop.push()
    intake.read_branch(world.config.app(None), world.deps, who="test", why="pushed")
    migrated(world, "UPDATE commits SET now_reason = 'the sale', now_by = 'ann'")
    with world.store.reading() as tx:
        assert [one.sha for one in tx.commits.wanted_now("shop")] == [waits]
        said = tx.events.of_subject("shop", f"commit {bad}")
    told = [(one.what, one.why) for one in said if one.who == "upgrade"]
    why = "it had failed before the upgrade: exit status 1"
    assert told == [("deploy --now withdrawn", why)]
    notices.send_due(world.deps)
    (body,) = [body for title, body in world.notifier.sent if title.endswith("is withdrawn")]
    assert body.startswith(f"ann said: the sale; {why}.\nNext: ")


def test_of_a_wish_is_told_what_is_known(world):
    """Neither who said it nor why it had failed need have been kept: the notice does without."""
    bad = world.push(fails=True)
    world.settle()
    migrated(world, "UPDATE commits SET now_reason = 'the sale', now_by = NULL, reason = NULL")
    notices.send_due(world.deps)
    (body,) = [body for title, body in world.notifier.sent if title.endswith("is withdrawn")]
    assert body.startswith("somebody said: the sale; it had failed before the upgrade.\nNext: ")
    assert bad[:12] in body
