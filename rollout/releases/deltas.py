"""The deltas of one app: each is made once, by whoever needs it first, and kept while its archive is."""

import gzip
import tarfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from rollout.domain import transfer
from rollout.domain.model import Delta, Release
from rollout.errors import ServiceUnavailable
from rollout.releases import delta, filelock
from rollout.releases.limits import DELTA_WAIT_S

log = structlog.get_logger()
_SPOILT = (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError)


@dataclass(frozen=True, slots=True)
class Deltas:
    """Keeps the newest `keep` of them. An empty file says that the archive does as well."""

    folder: Path
    keep: int

    def find(self, base: Release, target: Release) -> Delta | None:
        """What a host with the release `base` lacks of `target`; None when it should get all of it.

        Trouble is a None too: a delta saves bytes, and nothing depends on it.
        """
        try:
            if not (transfer.may_pay(target.size) and Path(base.archive).exists()):
                return None
            path = self._path(base, target)
            if not path.exists():
                self._make(base, target, path)
            size = path.stat().st_size
        except (OSError, ServiceUnavailable) as error:
            log.warning("no_delta", base=base.commit, commit=target.commit, error=str(error))
            return None
        return Delta(base.commit, base.digest, str(path), size) if size else None

    def _make(self, base: Release, target: Release, path: Path) -> None:
        with filelock.held(self.folder / "lock", wait_s=DELTA_WAIT_S, what=f"deltas of {target.commit[:12]}"):
            if path.exists():
                return
            new = self.folder / "new"
            try:
                delta.make(Path(base.archive), Path(target.archive), new, limit=transfer.limit(target.size))
            except (delta.TooMuch, *_SPOILT) as error:  # a spoilt archive is not read again for each host
                log.info("no_delta", base=base.commit, commit=target.commit, error=repr(error))
                new.write_bytes(b"")
            new.replace(path)
            self._prune(path)

    def _prune(self, made: Path) -> None:
        by_age = sorted(self.folder.glob("*.delta"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for number, old in enumerate(by_age):
            archive = self.folder.with_name(f"{old.name.partition('-')[0]}.tar.gz")
            if old != made and (number >= self.keep or not archive.exists()):
                with suppress(OSError):
                    old.unlink()

    def _path(self, base: Release, target: Release) -> Path:
        """Named by contents: a commit that was built again is another release."""
        return self.folder / f"{target.commit}-{base.digest[:16]}-{target.digest[:16]}.delta"
