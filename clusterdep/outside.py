"""Files outside of the tree that scans read: mk.conf, sys.mk, and what else is recorded.

What is in the prefix comes out of the bootstrap kit: each scan unpacks it anew. So it is the kit
that is looked at; other files are read where they are.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable
from pathlib import Path

from clusterdep.core.changes import Kind
from clusterdep.trees import Listing, Mark
from clusterdep.trees.seen import content


class Outside:
    """Looks at such files for one profile."""

    def __init__(self) -> None:
        self._kit: tuple[str, int, int] = ("", 0, 0)
        self._members: dict[str, str] = {}

    def look(
        self, paths: Iterable[str], prefix: str, kit: str, before: Listing | None
    ) -> tuple[Listing, dict[str, Kind]]:
        """The files now, and those that were known before and hold something else now."""
        members = self._read(kit)
        marks = {}
        for path in paths:
            if prefix and members and path.startswith(f"{prefix}/"):
                marks[path] = Mark(members.get(path, "no file"))
            else:
                marks[path] = Mark(content(Path(path)))
        old = before.marks if before else {}
        changes = {
            path: Kind.CHANGED
            for path, mark in marks.items()
            if path in old and old[path].content != mark.content
        }
        return Listing("outside", marks), changes

    def _read(self, kit: str) -> dict[str, str]:
        """Digests of the makefiles in a kit, by absolute path; read again when it has changed."""
        if not kit:
            return {}
        try:
            stat = Path(kit).stat()
            state = (kit, stat.st_mtime_ns, stat.st_size)
            if state != self._kit:
                with tarfile.open(kit) as archive:
                    self._members = dict(_makefiles(archive))
                self._kit = state
        except (OSError, tarfile.TarError):
            return {}  # whoever needs it says so
        return self._members


def _makefiles(archive: tarfile.TarFile) -> Iterable[tuple[str, str]]:
    for member in archive:
        if member.isfile() and member.name.endswith((".mk", ".conf")):
            file = archive.extractfile(member)
            if file is not None:
                name = "/" + member.name.removeprefix("./").lstrip("/")
                yield name, hashlib.sha256(file.read()).hexdigest()[:32]
