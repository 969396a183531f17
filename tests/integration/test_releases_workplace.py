"""Where commands run: fresh folders, found and removed whoever died."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rollout.errors import ServiceUnavailable
from rollout.releases import workplace as workplaces
from rollout.releases.workplace import FIRST_USER, for_command, remove, workplace
from tests.support.nobody import as_nobody, folder_of_nobody


def folders(root):
    return [path.name for path in sorted(root.glob("job-*")) if path.is_dir()]


def test_what_a_dead_worker_left_goes_with_the_next_job(tmp_path):
    """A folder without a living worker is removed by whoever comes next; a living job's folder stays."""
    for name in ("job-0", "job-7"):
        (tmp_path / name / "left").mkdir(parents=True)
    (tmp_path / "job-7.lock").touch()
    with workplace(tmp_path) as living, workplace(tmp_path) as other:
        assert folders(tmp_path) == [living.folder.name, other.folder.name]
        assert not (living.folder / "left").exists()
    assert folders(tmp_path) == []


def test_jobs_at_the_same_time_have_different_users(tmp_path):
    """Two jobs share neither folder nor user, and a number is given again when its job is over."""
    with workplace(tmp_path, first_user=FIRST_USER) as one, workplace(tmp_path, first_user=FIRST_USER) as two:
        assert one.user != two.user
        assert one.folder != two.folder
    with workplace(tmp_path, first_user=FIRST_USER) as again:
        assert again.user == one.user


def test_number_of_an_account_is_left_alone(tmp_path, monkeypatch):
    """A number that the machine has given to somebody is not used, and neither are more than there are."""
    monkeypatch.setattr(workplaces, "FIRST_USER", os.geteuid())
    monkeypatch.setattr(workplaces, "JOBS", 1)
    with pytest.raises(ServiceUnavailable, match="1 jobs"), workplace(tmp_path):
        pass


def test_unwritable_and_deep_trees_are_removed():
    """Neither rights nor 1100 folders inside each other keep a tree from a worker without rights."""

    def leave_and_remove():
        (tree / "a/b").mkdir(parents=True)
        (tree / "a/b/file").touch()
        for path in (tree / "a/b/file", tree / "a/b", tree / "a"):
            path.chmod(0)
        os.chdir(tree)
        for _ in range(1100):
            Path("d").mkdir()
            os.chdir("d")
        os.chdir("/")
        remove(tree)

    with folder_of_nobody() as folder:
        tree = folder / "tree"
        assert as_nobody(leave_and_remove)
        assert not tree.exists()


@pytest.mark.needs("root")
def test_folders_of_root_are_closed_to_others(tmp_path, monkeypatch):
    """The state directory loses its rights for others, and a job's folder, which its user can reach, is that user's alone."""
    monkeypatch.setattr(workplaces, "ROOM_FOR_USERS", tmp_path / "room")
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o755)
    strict = os.umask(0o077)
    try:
        with for_command(state_dir) as place:
            (place.tree / "file").write_text("")
            place.hand_over()
            assert state_dir.stat().st_mode & 0o7 == 0
            assert (tmp_path / "room").stat().st_mode & 0o777 == 0o711
            assert place.folder.stat().st_mode & 0o777 == 0o700
            paths = (place.folder, place.tree, place.tree / "file")
            assert {path.stat().st_uid for path in paths} == {place.user}
    finally:
        os.umask(strict)


@pytest.mark.skipif(
    os.system("unshare --map-root-user true 2>/dev/null") != 0, reason="needs user namespaces"
)
def test_root_without_users_runs_commands_as_itself(tmp_path):
    """The root of a container that has no other users is a worker without rights to give."""
    script = "import sys; from pathlib import Path; from rollout.releases.workplace import for_command\n"
    script += "with for_command(Path(sys.argv[1])) as place: print(place.user, place.folder.parent)"
    words = ["unshare", "--map-root-user", sys.executable, "-c", script, tmp_path]
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    assert told.stdout == f"None {tmp_path}/work\n"
