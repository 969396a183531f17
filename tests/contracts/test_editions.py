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


def test_a_part_that_goes_by_another_one_is_kept_apart(store):
    """Its own newest word, until all of them are forgotten."""
    with store.transaction() as tx:
        Editions(tx).put("1" * 64, "one 17")
        for process in ("one 18", "one 19"):
            Editions(tx).put_astray("hosts worker", "2" * 64, process)
        Editions(tx).put_astray("tests worker", "3" * 64, "one 20")
    with store.reading() as tx:
        found = Editions(tx).astray()
        assert Editions(tx).last()[:2] == ("1" * 64, "one 17")
    its = {part: word[:2] for part, word in found.items()}
    assert its == {"hosts worker": ("2" * 64, "one 19"), "tests worker": ("3" * 64, "one 20")}
    with store.transaction() as tx:
        Editions(tx).forget_astray()
        assert Editions(tx).astray() == {}
        assert Editions(tx).last()[:2] == ("1" * 64, "one 17")
