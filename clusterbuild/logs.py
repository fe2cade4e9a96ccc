"""The logs that are kept: STATE/logs/PROFILE/PKGNAME/ATTEMPT/STAGE.log."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from clusterbuild.core.result import STAGES

#: Logs a job may have, in the order people read them.
ORDER = ("sandbox", *STAGES)


class LogTree:
    """Directories of logs below `root`; its methods block, but only for a moment."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, profile: str, pkgname: str, attempt: str) -> Path:
        """Where the logs of an attempt are kept; not made here."""
        return self.root / profile / pkgname / attempt

    def append(self, directory: Path, stage: str, offset: int, data: bytes) -> None:
        """Writes a piece of a stage's log at its place; raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f"{stage}.log").open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)

    def prune(self, package: Path, keep: int) -> None:
        """Removes the logs of all but the newest attempts below a package's directory.

        `keep` is how many stay; 0: all.
        """
        if not keep or not package.is_dir():
            return
        attempts = [path for path in package.iterdir() if path.is_dir()]
        attempts.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in attempts[keep:]:
            shutil.rmtree(path, ignore_errors=True)

    def find(self, what: str) -> Path | None:
        """The directory of an attempt, or of the newest attempt of a pkgname."""
        if not what or "/" in what or what.startswith("."):
            return None
        found = [path for path in self.root.glob(f"*/*/{_literal(what)}") if path.is_dir()]
        if not found:
            found = [path for path in self.root.glob(f"*/{_literal(what)}/*") if path.is_dir()]
        return max(found, key=lambda path: path.stat().st_mtime, default=None)

    def read(self, directory: Path, stage: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of a stage's log from `offset` on; empty if there are none."""
        with suppress(FileNotFoundError), (directory / f"{stage}.log").open("rb") as file:
            file.seek(offset)
            return file.read(limit)
        return b""

    def stages(self, directory: Path) -> list[str]:
        """The stages that have a log there, in order."""
        return [stage for stage in ORDER if (directory / f"{stage}.log").is_file()]


def _literal(name: str) -> str:
    """A name as a pattern that matches nothing else."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
