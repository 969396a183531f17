"""A part's log stays bounded and loses no line at the turn."""

from pathlib import Path

from rollout.supervisor.logfile import LogFile


def test_it_is_turned_over_by_size_and_the_oldest_goes(tmp_path) -> None:
    """Past its largest size the file becomes .1, that one .2, and more than `kept` older ones are never there."""
    log = LogFile(tmp_path / "web.log", largest=10, kept=2)
    for number in range(5):
        log.write(b"%d23456\n" % number)
    log.close()
    assert (tmp_path / "web.log").read_bytes() == b"423456\n"
    assert (tmp_path / "web.log.1").read_bytes() == b"323456\n"
    assert (tmp_path / "web.log.2").read_bytes() == b"223456\n"
    assert len(list(tmp_path.iterdir())) == 3


def test_one_large_write_stays_in_one_piece(tmp_path) -> None:
    """What is larger than a file may be is written whole into one that is empty."""
    log = LogFile(tmp_path / "web.log", largest=10, kept=1)
    log.write(b"x" * 25)
    log.write(b"y")
    log.close()
    assert (tmp_path / "web.log.1").read_bytes() == b"x" * 25
    assert (tmp_path / "web.log").read_bytes() == b"y"


def test_it_goes_on_where_the_last_process_ended(tmp_path) -> None:
    """A new LogFile appends, and counts what is there already."""
    (tmp_path / "web.log").write_bytes(b"12345678")
    log = LogFile(tmp_path / "web.log", largest=10, kept=1)
    log.write(b"more")
    log.close()
    assert (tmp_path / "web.log.1").read_bytes() == b"12345678"


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path) -> None:
    """A write that fails raises nothing."""
    log = LogFile(tmp_path / "web.log")
    log._file.close()
    log._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115  # the log closes it
    log.write(b"lost")
    log.close()
