"""Which hosts are the canary, in which order hosts are activated, within what limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.model import Role
from rollout.domain.plan import canary_hosts, k_of, order
from rollout.errors import ConfigError
from tests.support.walks import WALK

FLEET = [f"web{n:03}" for n in range(1, 13)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (1, ["web001"]),
        (3, ["web001", "web002", "web003"]),
        (0, ["web001"]),
        (99, FLEET),
        (("web007",), ["web007"]),
        (("web007", "web002"), ["web007", "web002"]),
        (("web007", "web007"), ["web007"]),
    ],
)
def test_the_canary_is_named_or_the_first_hosts(wanted, expected):
    """A count takes the first hosts, at least one; names are taken as they are, each once."""
    assert canary_hosts(FLEET, wanted) == expected


def test_an_unknown_canary_host_is_refused_with_the_nearest_name():
    """A name that is not in the fleet says so, and which one was probably meant."""
    with pytest.raises(ConfigError) as refused:
        canary_hosts(FLEET, ("web001x",))
    assert "'web001x'" in str(refused.value)
    assert "did you mean 'web001'?" in str(refused.value)
    assert "include web001x" in refused.value.remedy


def test_a_canary_name_far_from_all_gets_no_guess():
    """Nothing is suggested where nothing is near."""
    with pytest.raises(ConfigError) as refused:
        canary_hosts(FLEET, ("database",))
    assert "did you mean" not in str(refused.value)


@pytest.mark.parametrize(("names", "wanted"), [([], 1), ([], ("web001",)), (FLEET, ())])
def test_there_is_no_rollout_without_a_canary(names, wanted):
    """An empty fleet and an empty list of canary hosts are refused."""
    with pytest.raises(ConfigError) as refused:
        canary_hosts(names, wanted)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("fleet", "canary", "baseline", "roles"),
    [
        (6, ["web001"], 2, "COOOBB"),
        (6, ["web003"], 0, "COOOOO"),
        (3, ["web002"], 4, "CBB"),
        (3, ["web001", "web002"], 4, "CCB"),
        (2, ["web001", "web002"], 4, "CC"),
        (1, ["web001"], 4, "C"),
    ],
)
def test_the_canary_is_first_and_the_baseline_last(fleet, canary, baseline, roles):
    """Canary, others, baseline: in a small fleet the baseline is what there is."""
    letters = {"C": Role.CANARY, "O": Role.OTHER, "B": Role.BASELINE}
    places = order(FLEET[:fleet], canary, baseline)
    assert [place.role for place in places] == [letters[letter] for letter in roles]
    assert [place.position for place in places] == list(range(fleet))


def test_the_order_of_the_fleet_is_kept():
    """Within a role hosts follow the order of the fleet; named canary hosts the order of their names."""
    places = order(FLEET[:6], ["web004", "web002"], 2)
    assert [place.name for place in places] == ["web004", "web002", "web001", "web003", "web005", "web006"]


@WALK
@given(st.integers(1, 60), st.integers(0, 70), st.integers(0, 70))
def test_every_host_has_one_place(total, wanted, baseline):
    """Whatever is asked for, each host is placed once, and there is a canary."""
    names = [f"h{n}" for n in range(total)]
    places = order(names, canary_hosts(names, wanted), baseline)
    assert sorted(place.name for place in places) == sorted(names)
    assert places[0].role is Role.CANARY
    assert sum(place.role is Role.BASELINE for place in places) <= baseline


@pytest.mark.parametrize(("value", "total", "k"), [(1, 100, 1), (0, 12, 0), (20, 12, 12), (-1, 12, 0)])
def test_k_is_never_above_the_fleet(value, total, k):
    """K is the number that was resolved, between none and all hosts."""
    assert k_of(value, total) == k
