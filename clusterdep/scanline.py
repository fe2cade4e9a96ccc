"""What of a profile is to be scanned by hosts: which pkgpaths, in which order, of which generation.

With a selection of pkgpaths and categories only these are scanned, and what their
dependencies name, and theirs, to the end; with none, or with patterns, the whole tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from clusterdep.catalog import Catalog
from clusterdep.core.scanqueue import Outdated
from clusterdep.facts import Pkgpath
from clusterdep.ledger import Ledger

#: With more pkgpaths than this the order is made anew only so often, seconds.
MANY, FRESH_SECONDS = 1000, 10.0
#: Returns of a pkgpath's scan, through no fault of its own as it seemed, until it fails.
MOST_RETURNS = 3


@dataclass(slots=True)
class _Known:
    """What was worked out of one profile."""

    deliveries: int = 0
    selection: tuple[str, ...] = ()
    wanted: frozenset[str] | None = None
    wanted_of: int = -1  # deliveries when that was worked out
    order: list[str] = field(default_factory=list)
    ordered_at: float = float("-inf")
    generation: str = ""
    until: float = -1.0  # what was outdated then, is scanned in this generation
    named: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict)


class ScanLine:
    """The pkgpaths that are to be scanned, for the profiles whose scans run on hosts."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._known: dict[str, _Known] = {}

    def delivered(self, catalog: Catalog) -> None:
        """Records were taken in: what they name may be wanted."""
        self._of(catalog).deliveries += 1

    def _of(self, catalog: Catalog) -> _Known:
        return self._known.setdefault(catalog.profile.name, _Known())

    # ---- which

    def wanted(self, catalog: Catalog) -> frozenset[str] | None:
        """The pkgpaths that have to be scanned for the selection; None: all of them."""
        known, selection = self._of(catalog), catalog.profile.selection
        if (known.selection, known.wanted_of) != (selection, known.deliveries):
            known.selection, known.wanted_of = selection, known.deliveries
            known.wanted = self._reached(catalog, known)
        return known.wanted

    def _reached(self, catalog: Catalog, known: _Known) -> frozenset[str] | None:
        """What the selection names, and all that is named from there."""
        waiting: list[str] = []
        for entry in catalog.profile.selection:
            name = entry.rstrip("/")
            found = (
                [name]
                if "/" in name
                else [path for path in catalog.paths if path.startswith(f"{name}/")]
            )
            if not found:
                return None  # a pattern: whatever has such a name
            waiting += found
        if not waiting:
            return None
        reached = set(waiting)
        while waiting:
            for path in self._named(catalog, waiting.pop(), known):
                if path not in reached:
                    reached.add(path)
                    waiting.append(path)
        return frozenset(path for path in reached if path in catalog.paths)

    def _named(self, catalog: Catalog, path: str, known: _Known) -> tuple[str, ...]:
        """The locations that the dependencies of a pkgpath's records name."""
        place = catalog.paths.get(path)
        if place is None or not place.packages:
            return ()
        before = known.named.get(path)
        if before is not None and before[0] == place.scanned_at:
            return before[1]
        ids = (catalog.entries[package].id for package in place.packages)
        rows = (row for one in ids for row in self.ledger.store.rows("requirements", (one,)))
        locations = tuple({str(row["location"]) for row in rows if row["location"]})
        known.named[path] = (place.scanned_at, locations)
        return locations

    def outdated(self, catalog: Catalog) -> Iterator[Pkgpath]:
        """The pkgpaths that are wanted and have to be scanned, in no order."""
        wanted = self.wanted(catalog)
        for path, place in catalog.paths.items():
            if place.outdated_at is not None and (wanted is None or path in wanted):
                yield place

    # ---- in which order

    def line(
        self, catalog: Catalog, open_: Callable[[str], bool], returns: Callable[[Pkgpath], int]
    ) -> list[Outdated]:
        """What could be scanned now, most needed first. `open_` tells what nobody scans."""
        known, now = self._of(catalog), self.ledger.clock()
        left = {place.path: place for place in self.outdated(catalog) if open_(place.path)}
        if len(left) <= MANY or now - known.ordered_at > FRESH_SECONDS:
            known.order = sorted(left, key=lambda path: self._urgency(catalog, left[path]))
            known.ordered_at = now
        order = [path for path in known.order if path in left]
        if not order and left:  # all that was put in order is done
            known.ordered_at = float("-inf")
            return self.line(catalog, open_, returns)
        tried = ((left[path], returns(left[path])) for path in order)
        return [
            Outdated(place.path, place.seconds, count > 0)
            for place, count in tried
            if count < MOST_RETURNS
        ]

    @staticmethod
    def _urgency(catalog: Catalog, place: Pkgpath) -> tuple[float, int]:
        """First what needed packages wait for longest, then what is new, then the rest."""
        if not place.scanned_at:
            return 0.0, place.position
        levels = [catalog.level(p) for p in place.packages if p in catalog.needed]
        return -max(levels, default=-1.0), place.position

    # ---- of which generation

    def generation(self, catalog: Catalog, granted: list[Pkgpath]) -> str:
        """Names what these scans have to see: another one where some were outdated since."""
        known, now = self._of(catalog), self.ledger.clock()
        since = max((place.outdated_at or 0.0 for place in granted), default=now)
        if since > known.until or not known.generation:
            known.generation, known.until = f"{catalog.profile.name}-{now:.6f}", now
        return known.generation
