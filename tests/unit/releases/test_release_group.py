"""Where a control group can be made, on trees as Linux machines have them."""

import pytest

from rollout.releases.group import parents

UNIT = "0::/system.slice/rollout.service\n"


@pytest.fixture
def root(tmp_path):
    return tmp_path


def hand_on(group, controllers):
    group.mkdir(parents=True, exist_ok=True)
    (group / "cgroup.subtree_control").write_text(controllers + "\n")


def test_version_1_is_below_our_own_groups(root):
    """With a hierarchy for each controller, memory and processes each have a place below where we are, and time if it is there."""
    own = "9:name=systemd:/\n8:pids:/a\n4:memory:/b/c\n1:cpu,cpuacct:/\n0::/\n"
    memory, pids = root / "memory/b/c", root / "pids/a"
    assert list(parents(root, own)) == [(memory, memory), (pids, pids)]
    time = root / "cpu"
    time.mkdir()
    assert list(parents(root, own)) == [(time, time), (memory, memory), (pids, pids)]


def test_version_2_is_beside_our_own_group(root):
    """A unit has processes, so what hands controllers on is the group above it."""
    hand_on(root / "system.slice/rollout.service", "")
    hand_on(root / "system.slice", "cpu memory pids")
    home = root / "system.slice/rollout.service"
    assert list(parents(root, UNIT)) == [(home, root / "system.slice")]


def test_version_2_at_its_root_is_below_it(root):
    """The root of all groups may have both processes and groups below it."""
    hand_on(root, "memory pids")
    assert list(parents(root, "0::/\n")) == [(root, root)]


@pytest.mark.parametrize("handed_on", ["", "memory", "cpu pids"])
def test_without_both_controllers_there_is_no_place(root, handed_on):
    """Half a bound is none: memory and processes, or nothing."""
    hand_on(root / "system.slice", handed_on)
    assert list(parents(root, UNIT)) == []
    assert list(parents(root, "")) == []


def test_nothing_above_the_root_is_looked_at(root):
    """In a container our own group is the root that we see; what is above the mount is no place."""
    inner = root / "mounted"
    hand_on(inner, "")
    hand_on(root, "memory pids")
    assert list(parents(inner, "0::/\n")) == []
