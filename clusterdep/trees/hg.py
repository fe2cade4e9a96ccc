"""Trees in Mercurial: changesets by their status, uncommitted changes by what the files hold."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from clusterdep.core.changes import Kind, is_foreign
from clusterdep.trees.seen import Listing, Mark, Seen, TreeError, content, differences, summary

#: How long one hg command may take, seconds.
TIME_LIMIT = 600.0

#: What is in .hg only while something has not ended.
_UNDER_WAY = {
    "updatestate": "an update was cut short; update again",
    "rebasestate": "a rebase has not ended; end it, or abort it",
    "histedit-state": "an edit of history has not ended; end it, or abort it",
    "graftstate": "a graft has not ended; end it, or abort it",
}


class Hg:
    """A working directory of Mercurial."""

    def __init__(self, top: Path, skip: Collection[str] = ()) -> None:
        """`skip` are names in `top` where another tree is laid over it."""
        self.top = top
        self.skip = tuple(f"{name}/" for name in skip)

    def look(self, before: Listing | None) -> Seen:
        """See Tree."""
        parent = self._parent()
        dirty = {
            path: Mark(content(self.top / path))
            for path, _ in self._status("--modified", "--added", "--removed", "--deleted", "-u")
        }
        if self._parent() != parent:
            raise TreeError(f"{self.top}: it changes at this moment; it is looked at again later")
        revision = f"hg:{parent}" + (f"+{summary(dirty)}" if dirty else "")
        if before is not None and before.revision == revision:
            return Seen(before, {})
        listing = Listing(revision, {}, time.time(), dirty)
        if before is None:
            return Seen(listing, {})
        return self._compared(before, listing, parent)

    def _compared(self, before: Listing, listing: Listing, parent: str) -> Seen:
        was = before.revision.removeprefix("hg:").partition("+")[0]
        remarks: tuple[str, ...] = ()
        changes: dict[str, Kind] = {}
        if was != parent:
            if not self._known(was):
                remark = f"hg does not know {was[:12]} any more: everything may have changed"
                return Seen(listing, {}, (remark,), everything=True)
            if not self._descends(was, parent):
                remarks = (
                    f"history was rewritten: {was[:12]} is not among the ancestors of what is "
                    "there now",
                )
            changes = dict(
                self._status("--modified", "--added", "--removed", "--rev", was, "--rev", parent)
            )
        for path in differences(before.dirty, listing.dirty):
            there = (self.top / path).exists()
            changes[path] = Kind.CHANGED if there else Kind.GONE
        return Seen(listing, changes, remarks)

    def _parent(self) -> str:
        """The changeset that is checked out. Raises TreeError while something is under way."""
        root = Path(os.fsdecode(self._hg("root")).rstrip("\n"))
        if (root / ".hg/wlock").is_symlink() or (root / ".hg/wlock").exists():
            raise TreeError(
                f"{self.top}: an hg command is under way, or was killed: .hg/wlock is there"
            )
        for name, what in _UNDER_WAY.items():
            if (root / ".hg" / name).exists():
                raise TreeError(f"{self.top}: {what}")
        unresolved = [
            line for line in self._hg("resolve", "--list").splitlines() if line.startswith(b"U ")
        ]
        if unresolved:
            path = os.fsdecode(unresolved[0][2:])
            raise TreeError(f"{root / path}: it has conflicts; resolve them and commit")
        return self._hg("log", "--rev", ".", "--template", "{node}").decode().strip()

    def _known(self, revision: str) -> bool:
        return self._run(("log", "--rev", revision, "--template", ".")).returncode == 0

    def _descends(self, was: str, parent: str) -> bool:
        found = self._hg("log", "--rev", f"{was} and ancestors({parent})", "--template", ".")
        return found != b""

    def _status(self, *words: str) -> Iterator[tuple[str, Kind]]:
        """Files below the tree, relative to it, and what became of them."""
        out = self._hg("status", "--print0", *words, ".")
        for field in out.split(b"\0"):
            path = os.fsdecode(field[2:])
            if path and not path.startswith(self.skip) and not is_foreign(path):
                kind = {b"A": Kind.NEW, b"?": Kind.NEW, b"R": Kind.GONE, b"!": Kind.GONE}
                yield path, kind.get(field[:1], Kind.CHANGED)

    # --- hg

    def _hg(self, *words: str) -> bytes:
        """What hg prints. Raises TreeError with what it says."""
        done = self._run(words)
        if done.returncode:
            said = done.stderr.decode(errors="backslashreplace").strip()
            why = said.splitlines()[0] if said else f"exit status {done.returncode}"
            raise TreeError(f"{self.top}: hg {words[0]}: {why}")
        return done.stdout

    def _run(self, words: Collection[str]) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                ("hg", "--noninteractive", "--config", "extensions.purge=!", *words),
                cwd=self.top,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=TIME_LIMIT,
                env=os.environ | {"HGPLAIN": "1", "LC_ALL": "C"},
            )
        except FileNotFoundError as error:
            if not self.top.is_dir():
                raise TreeError(f"{self.top}: there is no such directory") from error
            raise TreeError("there is no program hg; install it") from error
        except subprocess.TimeoutExpired as error:
            raise TreeError(f"{self.top}: hg {next(iter(words))} does not end") from error
