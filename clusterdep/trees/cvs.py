"""CVS checkouts: what CVS/Entries says, without asking any server.

A file whose time is the one in CVS/Entries holds the revision that stands there; another is
read. So a checkout that was made anew is the same as before, whatever its times are.
"""

from __future__ import annotations

import calendar
import os
import time
from pathlib import Path

from clusterdep.trees.seen import TreeError
from clusterdep.trees.walk import Files, Told

_TIME = "%a %b %d %H:%M:%S %Y"
#: What cvs leaves in a directory only while it works there.
_UNDER_WAY = ("Entries.Log", "Entries.Backup", "Baserev.tmp")


class Cvs(Files):
    """A working directory of CVS."""

    scheme = "cvs"

    def opened(self, directory: str) -> Told:
        """Reads CVS/Entries of a directory."""
        if not directory and not (self.top / "CVS/Entries").is_file():
            raise TreeError(f"{self.top}: CVS does not know it: CVS/Entries is missing")
        known = self._entries(directory)

        def told(name: str, stat: os.stat_result) -> str:
            revision, stamp = known.get(name, ("", ""))
            when = _seconds(stamp)
            return f"cvs:{revision}" if when is not None and when == int(stat.st_mtime) else ""

        return told

    def _entries(self, directory: str) -> dict[str, tuple[str, str]]:
        """(revision, time stamp) by name. Raises TreeError if the directory is not whole."""
        place = self.top / directory
        for name in _UNDER_WAY:
            if (place / "CVS" / name).exists():
                raise TreeError(
                    f"{place}: a cvs update is under way, or was cut short ({name} is in "
                    "CVS); let it end, or update again"
                )
        try:
            text = (place / "CVS/Entries").read_text(errors="surrogateescape")
        except FileNotFoundError:
            return {}  # a directory that CVS does not know
        except OSError as error:
            raise TreeError(f"{place}/CVS/Entries: {error.strerror}") from error
        found = {}
        for line in text.splitlines():
            parts = line.split("/")
            if len(parts) < 6 or parts[0]:
                continue  # D: a directory
            _, name, revision, stamp, options, tag = parts[:6]
            _whole(place, name, revision, stamp)
            # A sticky tag or -k option gives the same revision other content.
            found[name] = (f"{revision} {options} {tag}".strip(), stamp)
        return found


def _whole(place: Path, name: str, revision: str, stamp: str) -> None:
    """Raises TreeError for a file that cvs left with conflicts, or did not write."""
    path = place / name
    try:
        when = int(path.lstat().st_mtime)
    except FileNotFoundError:
        if revision.startswith("-"):
            return  # removed, and not committed
        raise TreeError(
            f"{path}: CVS/Entries has it, and it is not there: the checkout is not whole; "
            "update again (or cvs remove it)"
        ) from None
    _, conflict, after = stamp.partition("+")
    if conflict and _seconds(after) == when:
        raise TreeError(f"{path}: cvs left conflicts in it; mend them, or update it with -C")


def _seconds(stamp: str) -> int | None:
    """A time stamp of CVS/Entries (UTC) in seconds since 1970."""
    try:
        return calendar.timegm(time.strptime(stamp, _TIME))
    except ValueError:
        return None
