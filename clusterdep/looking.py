"""Looks at the trees of profiles, and keeps what the next look is compared with.

Listings are files in the state directory. They are only kept after what they led to was
committed: after a crash the same changes are seen again, and never fewer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.core.changes import Kind
from clusterdep.layout import Place, places, through_links
from clusterdep.ledger import Ledger
from clusterdep.outside import Outside
from clusterdep.trees import Listing, Seen, TreeError, load, save, tree

log = logging.getLogger("clusterdep.follow")

#: How often a tree is looked at that does not say it, seconds.
USUAL_SECONDS = 60.0

Changes = dict[str, Kind]


@dataclass
class Standing:
    """How it stands with one tree."""

    looked: float = 0.0
    error: str = ""
    #: What was seen last; of what git and hg know themselves only the revision.
    listing: Listing | None = None
    loaded: bool = False


@dataclass
class Look:
    """What one look at all trees of a profile found."""

    changes: Changes = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # of trees that cannot be seen now
    everything: str = ""  # why everything may have changed
    seen: list[tuple[Place, Listing]] = field(default_factory=list)
    outside: Listing | None = None


class Looking:
    """Looks at trees; one look at a time for each profile."""

    def __init__(self, ledger: Ledger, state: Path) -> None:
        """`state` is the daemon's directory."""
        self._ledger = ledger
        self._state = state / "trees"
        self._standing: dict[tuple[str, str], Standing] = defaultdict(Standing)
        self._outside: dict[str, Outside] = defaultdict(Outside)

    def due(self, name: str) -> bool:
        """Whether a tree of the profile has not been looked at for long enough."""
        profile = self._ledger.catalog(name).profile
        every = profile.follow_seconds or USUAL_SECONDS
        now = self._ledger.clock()
        return any(
            place.follow != "none" and now - self._standing[name, place.at].looked >= every
            for place in places(profile)
        )

    def standing(self, name: str) -> list[pb.Following]:
        """How it stands with the trees of a profile that are followed."""
        found = []
        for place in places(self._ledger.catalog(name).profile):
            standing = self._standing[name, place.at]
            if place.follow != "none":
                found.append(
                    pb.Following(
                        at=place.at,
                        tree=str(place.top),
                        follow=place.follow,
                        followed=place.followed,
                        looked=standing.looked,
                        error=standing.error,
                    )
                )
        return found

    async def look(self, name: str) -> Look:
        """Looks at all trees of a profile, and at the files outside of them that scans read."""
        catalog = self._ledger.catalog(name)
        look = Look()
        over = tuple(place.at for place in places(catalog.profile) if place.at)
        for place in places(catalog.profile):
            if place.follow != "none":
                await self._one(catalog, place, over, look)
        await self._look_outside(catalog, look)
        return look

    async def _one(self, catalog: Catalog, place: Place, over: tuple[str, ...], look: Look) -> None:
        name = catalog.profile.name
        standing = self._standing[name, place.at]
        standing.looked = self._ledger.clock()
        try:
            seen = await asyncio.to_thread(self._see, name, place, () if place.at else over)
        except TreeError as error:
            look.errors.append(str(error))
            self._say(name, place, standing, str(error))
            return
        self._say(name, place, standing, "")
        found = await asyncio.to_thread(through_links, place.top, seen.listing, seen.changes)
        look.changes |= {place.path(path): kind for path, kind in found.items()}
        look.remarks += seen.remarks
        if seen.everything:
            look.everything = seen.remarks[0]
        if standing.listing is None and catalog.paths:
            look.remarks.append(
                f"{place.top}: what changed before {seen.listing.revision} is unknown"
            )
        if standing.listing is None or standing.listing.revision != seen.listing.revision:
            look.seen.append((place, seen.listing))

    def _kept(self, name: str, place: Place) -> Path:
        return self._state / name / f"{place.at or 'tree'}.zst"

    def _see(self, name: str, place: Place, over: tuple[str, ...]) -> Seen:
        """In a thread: what changed in one tree."""
        standing = self._standing[name, place.at]
        kept = self._kept(name, place)
        before = standing.listing
        if not standing.loaded or place.follow in ("files", "cvs"):
            before = load(kept)
        if not standing.loaded:
            if before is None and place.follow == "git" and not place.at:
                before = _made_of(self._ledger.catalog(name))
            standing.listing = _light(before)
            standing.loaded = True
        way = tree(place.follow, place.top, over)
        seen = way.look(before)
        if seen.everything and before is not None and not before.marks:
            whole = load(kept)
            if whole is not None and whole.marks:
                seen = way.look(whole)
        return seen

    def _say(self, name: str, place: Place, standing: Standing, error: str) -> None:
        """Says once that a tree cannot be seen, and once that it can again."""
        before, standing.error = standing.error, error
        if bool(before) == bool(error):
            return
        if error:
            log.warning("profile %s: %s", name, error)
        cause = error or "its changes are seen again"
        with self._ledger.transaction():
            self._ledger.event(name, "tree-unseen", str(place.top), cause, seen=not error)

    async def _look_outside(self, catalog: Catalog, look: Look) -> None:
        profile = catalog.profile
        readers = await self._ledger.files.readers(profile.id)
        paths = [path for path in readers.paths() if path.startswith("/")]
        before = await asyncio.to_thread(load, self._state / profile.name / "outside.zst")
        listing, found = await asyncio.to_thread(
            self._outside[profile.name].look, paths, profile.prefix, profile.kit, before
        )
        look.changes |= found
        if before is None or listing.marks != before.marks:
            look.outside = listing

    async def keep(self, name: str, look: Look) -> None:
        """After the commit: what the next look is compared with."""
        for place, listing in look.seen:
            await asyncio.to_thread(save, listing, self._kept(name, place))
            self._standing[name, place.at].listing = _light(listing)
        if look.outside is not None:
            await asyncio.to_thread(save, look.outside, self._state / name / "outside.zst")


def _light(listing: Listing | None) -> Listing | None:
    """A listing without what git and hg know themselves."""
    return listing and Listing(listing.revision, {}, listing.taken, listing.dirty)


def _made_of(catalog: Catalog) -> Listing | None:
    """What all scans were made of, if `clusterdep scan` named one and the same tree object."""
    revisions = {place.revision.partition("+")[0] for place in catalog.paths.values()}
    revision = revisions.pop() if len(revisions) == 1 else ""
    return Listing(revision) if revision.startswith("git:") else None
