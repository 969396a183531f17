"""Notices are sent until each address has taken them, or they are too old."""

from rollout.errors import DeliveryFailed
from rollout.services import notices


def test_who_has_taken_a_notice_does_not_get_it_again(world, monkeypatch):
    """One address that refuses is tried again by itself, until it takes it too: who is paged takes a second one for news."""
    asked, refusing = [], {2}

    def send(_urls, title, body, *, only=None):
        asked.append((title, body, only))
        if failed := tuple(refusing & (only or {1, 2, 3})):
            raise DeliveryFailed("no", numbers=failed)

    monkeypatch.setattr(world.notifier, "send", send)
    with world.store.transaction() as tx:
        tx.notices.add("shop", None, "title", "body")
    for _ in range(3):
        notices.send_due(world.deps)
        world.seconds += 60
    refusing.clear()
    for _ in range(3):
        notices.send_due(world.deps)
        world.seconds += 600
    assert asked == [("title", "body", None), *3 * [("title", "body", frozenset({2}))]]
