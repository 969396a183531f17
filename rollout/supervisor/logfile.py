"""A process's log: a file that is turned over by size, so that it stays bounded."""

from pathlib import Path

LARGEST = 5 * 1024 * 1024
KEPT = 2  # older files beside the current one


class LogFile:
    """Appends bytes to `path`; past `largest` bytes the file becomes `path.1`, that one `path.2`, and so on."""

    def __init__(self, path: Path, *, largest: int = LARGEST, kept: int = KEPT) -> None:
        self.path = path
        self._largest = largest
        self._kept = kept
        self._open()

    def write(self, data: bytes) -> None:
        """Append `data`; a full disk loses log lines, never a process."""
        try:
            if self._size and self._size + len(data) > self._largest:
                self._turn_over()
            self._file.write(data)
            self._size += len(data)
        except OSError:
            return

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> None:
        self._file = self.path.open("ab", buffering=0)
        self._size = self._file.tell()

    def _turn_over(self) -> None:
        self._file.close()
        for number in range(self._kept, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self.path if number == 0 else self.path.with_name(f"{self.path.name}.{number}")
