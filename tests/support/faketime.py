"""The wall clock of some processes, stepped while they run: libfaketime, which leaves the monotonic clocks alone, as a real step does."""

from pathlib import Path

# time.sleep sleeps until a moment of CLOCK_MONOTONIC, and libfaketime 0.9.10 makes an invalid one of it (EINVAL).
_SLEEP = """\
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""


def library() -> str | None:
    """Where the library for programs with threads is."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return str(found[0]) if found else None


class Faketime:
    """A clock that begins right; `environment` is for the processes that are to go by it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "offset"
        (folder / "sitecustomize.py").write_text(_SLEEP)
        self.step_to(0)
        self.environment = {
            "LD_PRELOAD": library() or "",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(folder),
        }

    def step_to(self, seconds: int) -> None:
        """From now on it is so far from the true time."""
        new = self._file.with_name("new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
        self.offset = seconds
