"""Trees as they lie on the disk, and what changed in them: git, CVS, Mercurial, plain files.

A tree is looked at and compared with a listing of what it was before; it is never written
to, and no server is asked. What is seen half-way through an update is not taken in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from clusterdep.trees.cvs import Cvs
from clusterdep.trees.git import Git
from clusterdep.trees.hg import Hg
from clusterdep.trees.seen import Listing, Mark, Seen, Tree, TreeError, load, save
from clusterdep.trees.walk import Files

WAYS: dict[str, Callable[[Path, Collection[str]], Tree]] = {
    "git": Git,
    "cvs": Cvs,
    "hg": Hg,
    "files": Files,
}


def tree(way: str, top: Path, skip: Collection[str] = ()) -> Tree:
    """The tree at `top`, seen in that way; `skip` are names in it where another is laid over."""
    return WAYS[way](top, skip)


__all__ = ["Listing", "Mark", "Seen", "Tree", "TreeError", "load", "save", "tree"]
