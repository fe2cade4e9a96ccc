"""How the trees of a profile lie over each other, and which path of it a file is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterdep.core.changes import Kind
from clusterdep.facts import Profile
from clusterdep.trees import Listing


@dataclass(frozen=True)
class Place:
    """One of the trees of a profile."""

    at: str  # its name in the top directory; empty: the tree itself
    top: Path
    follow: str
    followed: str

    def path(self, relative: str) -> str:
        """A file of it as the profile sees it."""
        return f"{self.at}/{relative}" if self.at else relative


def places(profile: Profile) -> list[Place]:
    """The tree of a profile and those that are laid over it."""
    if not profile.tree:
        return []
    found = [Place("", Path(profile.tree), profile.follow, profile.followed)]
    for overlay in profile.overlays:
        top = Path(overlay.tree or Path(profile.tree, overlay.at))
        follow = overlay.follow or profile.follow
        found.append(Place(overlay.at, top, follow, overlay.followed))
    return found


def real_path(profile: Profile, file: str) -> str:
    """The path of a file that somebody named: relative to the tree, or absolute outside of it."""
    path = os.path.normpath(os.path.join(profile.tree, file) if profile.tree else file)  # noqa: PTH118
    if not profile.tree:
        return path
    # What is laid over comes first: its directory may be within the tree.
    for place in reversed(places(profile)):
        for top in dict.fromkeys((str(place.top), os.path.realpath(place.top))):
            if path.startswith(f"{top}/"):
                return place.path(path[len(top) + 1 :])
    return path


def place_of(profile: Profile, path: str) -> Path:
    """Where a real path is on the disk."""
    for place in places(profile):
        if place.at and path.startswith(f"{place.at}/"):
            return place.top / path[len(place.at) + 1 :]
    return Path(profile.tree, path)


def through_links(top: Path, listing: Listing, changes: Mapping[str, Kind]) -> dict[str, Kind]:
    """The changes, and the same again by the names that links in the tree give them."""
    found = dict(changes)
    for link, target in _links(top, listing):
        for path, kind in changes.items():
            if path == target or path.startswith(f"{target}/"):
                found.setdefault(link + path[len(target) :], kind)
    return found


def _links(top: Path, listing: Listing) -> Iterator[tuple[str, str]]:
    """Links in a tree that lead to something else in it: (link, target), relative to it."""
    for path, mark in (*listing.marks.items(), *listing.dirty.items()):
        if mark.content.startswith(("-> ", "120000 ")):
            try:
                leads = os.readlink(top / path)  # noqa: PTH115
            except OSError:
                continue
            target = os.path.normpath(top / Path(path).parent / leads)
            if target.startswith(f"{top}/"):
                yield path, target[len(str(top)) + 1 :]
