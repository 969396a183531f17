"""What automation says it goes by, on both databases."""

from rollout.store.editions import Editions


def test_the_newest_word_counts(store):
    """Nothing before the first; then one row, by whoever spoke last, with its age."""
    with store.reading() as tx:
        assert Editions(tx).last() is None
    for digest, process in (("1" * 64, "one 17"), ("2" * 64, "two 18")):
        with store.transaction() as tx:
            Editions(tx).put(digest, process)
        with store.reading() as tx:
            last = Editions(tx).last()
        assert last[:2] == (digest, process)
        assert 0 <= last.ago_s < 60
