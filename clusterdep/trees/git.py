"""Trees in git: commits by their diff, uncommitted changes by what the files hold.

Nothing is written to the repository, and no lock is taken in it. The work tree counts, as
that is what is scanned: a pull that was killed half-way is not taken in.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from clusterdep.core.changes import Kind, is_foreign
from clusterdep.trees.seen import Listing, Mark, Seen, TreeError, content, differences, summary

#: How long one git command may take, seconds.
TIME_LIMIT = 600.0

_UNDER_WAY = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
}
_UNMERGED = frozenset(("DD", "AU", "UD", "UA", "DU", "AA", "UU"))


class Git:
    """A work tree, or a directory in one."""

    def __init__(self, top: Path, skip: Collection[str] = ()) -> None:
        """`skip` are names in `top` where another tree is laid over it."""
        self.top = top
        self.skip = tuple(f"{name}/" for name in skip)

    def look(self, before: Listing | None) -> Seen:
        """See Tree."""
        directory, prefix = self._place()
        head = self._head(directory)
        dirty = self._dirty(prefix, before)
        if self._head(directory) != head:
            raise TreeError(f"{self.top}: it changes at this moment; it is looked at again later")
        revision = f"git:{head}" + (f"+{summary(dirty)}" if dirty else "")
        if before is not None and before.revision == revision:
            return Seen(before, {})
        listing = Listing(revision, self._blobs(head), time.time(), dirty)
        if before is None:
            return Seen(listing, {})
        changes, remarks, everything = self._committed(before, listing, head)
        for path in differences(before.dirty, dirty):
            if not os.path.lexists(self.top / path):
                changes[path] = Kind.GONE
            else:
                changes[path] = Kind.CHANGED if path in listing.marks else Kind.NEW
        wanted = {p: kind for p, kind in changes.items() if self._wanted(p)}
        return Seen(listing, wanted, remarks, everything)

    def _wanted(self, path: str) -> bool:
        return not path.startswith(self.skip) and not is_foreign(path)

    # --- is it whole

    def _place(self) -> tuple[Path, str]:
        """(git's own directory, the way from the top of the work tree to the tree)."""
        found = self._git("rev-parse", "--absolute-git-dir", "--show-prefix").decode()
        directory, _, prefix = found.rstrip("\n").partition("\n")
        return Path(directory), prefix

    def _head(self, directory: Path) -> str:
        """The commit that is checked out. Raises TreeError while something else is under way."""
        lock = directory / "index.lock"
        if lock.exists():
            raise TreeError(
                f"{self.top}: a git command is under way, or was killed: {lock} is there; if "
                "none runs any more, remove it and check out again"
            )
        for name, what in _UNDER_WAY.items():
            if (directory / name).exists():
                raise TreeError(f"{self.top}: {what} has not ended; end it, or abort it")
        return self._git("rev-parse", "--verify", "-q", "HEAD").decode().strip()

    def _dirty(self, prefix: str, before: Listing | None) -> dict[str, Mark]:
        """What the files hold that differ from the commit; raises TreeError at a conflict."""
        out = self._git("status", "--porcelain=v1", "-z", "-uall", "--no-renames", "--", ".")
        found: dict[str, Mark] = {}
        for field in out.decode(errors="surrogateescape").split("\0"):
            state, path = field[:2], field[3:].removeprefix(prefix)
            if state in _UNMERGED:
                raise TreeError(f"{self.top / path}: it has conflicts; mend them and commit")
            # A name with a slash at its end is another repository.
            if path and not path.endswith("/") and self._wanted(path):
                found[path] = Mark(content(self.top / path))
        return found

    # --- what changed

    def _blobs(self, head: str) -> dict[str, Mark]:
        """What the commit holds: for the case that git knows it no more when we compare."""
        out = self._git("ls-tree", "-r", "-z", head)
        lines = out.decode(errors="surrogateescape").split("\0")[:-1]
        found = {}
        for line in lines:
            facts, _, path = line.partition("\t")
            mode, kind, blob = facts.split(" ")
            if kind == "blob":
                found[path] = Mark(f"{mode} {blob}")
        return found

    def _committed(
        self, before: Listing, listing: Listing, head: str
    ) -> tuple[dict[str, Kind], tuple[str, ...], bool]:
        """Changes from commit to commit, remarks, and whether nothing is known of them."""
        was = before.revision.removeprefix("git:").partition("+")[0]
        if was == head:
            return {}, (), False
        if self._known(was):
            remarks = () if self._descends(was, head) else (self._rewritten(was),)
            return dict(self._diff(was, head)), remarks, False
        if before.marks:
            remark = f"git does not know {was[:12]} any more: compared by content"
            return differences(before.marks, listing.marks), (remark,), False
        remark = f"it is not known what {was[:12]} held: everything may have changed"
        return {}, (remark,), True

    def _known(self, revision: str) -> bool:
        return bool(revision) and self._succeeds("cat-file", "-e", f"{revision}^{{tree}}")

    def _descends(self, was: str, head: str) -> bool:
        # What a scan was made of may be a tree: that has no history to be rewritten.
        return not self._is_commit(was) or self._succeeds("merge-base", "--is-ancestor", was, head)

    def _rewritten(self, was: str) -> str:
        shallow = self._git("rev-parse", "--is-shallow-repository").decode().strip() == "true"
        why = "the clone is shallow" if shallow else "history was rewritten"
        return f"{why}: {was[:12]} is not among the ancestors of what is there now"

    def _diff(self, was: str, head: str) -> Iterator[tuple[str, Kind]]:
        options = ("-r", "-z", "--no-renames", "--name-status")
        if self._is_commit(was):
            out = self._git("diff-tree", *options, "--relative", was, head)
        else:
            out = self._git("diff-tree", *options, was, f"{head}:./")
        fields = out.decode(errors="surrogateescape").split("\0")
        kinds = {"A": Kind.NEW, "D": Kind.GONE}
        for status, path in zip(fields[0::2], fields[1::2], strict=False):
            yield path, kinds.get(status[:1], Kind.CHANGED)

    def _is_commit(self, revision: str) -> bool:
        return self._succeeds("cat-file", "-e", f"{revision}^{{commit}}")

    # --- git

    def _succeeds(self, *words: str) -> bool:
        return self._run(words).returncode == 0

    def _git(self, *words: str) -> bytes:
        """What git prints. Raises TreeError with what it says."""
        done = self._run(words)
        if done.returncode:
            said = done.stderr.decode(errors="backslashreplace").strip()
            why = said.splitlines()[0] if said else f"exit status {done.returncode}"
            raise TreeError(f"{self.top}: git {words[0]}: {why}")
        return done.stdout

    def _run(self, words: Collection[str]) -> subprocess.CompletedProcess[bytes]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("GIT_")
        }
        environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
        try:
            return subprocess.run(
                ("git", "-c", "core.fsmonitor=false", "-C", str(self.top), *words),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=TIME_LIMIT,
                env=environment,
            )
        except FileNotFoundError as error:
            raise TreeError("there is no program git; install it") from error
        except subprocess.TimeoutExpired as error:
            raise TreeError(f"{self.top}: git {next(iter(words))} does not end") from error
