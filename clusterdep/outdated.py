"""Pkgpaths that are to be scanned again: in which order, and what that will cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from clusterdep.catalog import Catalog
from clusterdep.core import predict
from clusterdep.facts import Pkgpath

#: For more pkgpaths than that only direct dependents are counted, which is quicker.
COUNTED = 1000


def needed(catalog: Catalog, place: Pkgpath) -> int:
    """How many selected packages need what is in a pkgpath, themselves included."""
    return len(catalog.graph.dependent_closure(place.packages) & catalog.selected)


def most_needed_first(catalog: Catalog, places: Collection[Pkgpath]) -> list[Pkgpath]:
    """The pkgpaths in the order in which they should be scanned.

    What was never scanned comes first: what others need of it is not known yet.
    """
    dependents = catalog.graph.dependents

    def direct(place: Pkgpath) -> int:
        return sum(len(dependents[package]) for package in place.packages)

    def exact(place: Pkgpath) -> int:
        return needed(catalog, place)

    count = exact if len(places) <= COUNTED else direct
    return sorted(places, key=lambda p: (p.scanned_at > 0, -count(p), p.position))


@dataclass(frozen=True)
class Cost:
    """What scanning some pkgpaths again is predicted to lead to, at most."""

    scan_seconds: float  # of one core
    rebuilds: int  # artifacts that may be stale then
    rebuild_seconds: float  # of one slot, if all of them are


def cost(catalog: Catalog, places: Collection[Pkgpath], new: int = 0) -> Cost:
    """The cost of scanning these pkgpaths, and `new` ones of which nothing is known."""
    known = [place.seconds for place in catalog.paths.values() if place.seconds]
    usual = sum(known) / len(known) if known else 1.0
    scans = sum(place.seconds or usual for place in places) + new * usual
    packages = [package for place in places for package in place.packages]
    stale = catalog.graph.dependent_closure(packages)
    stale = {package for package in stale if package in catalog.artifacts}
    unknown = predict.unknown(catalog.expected)
    return Cost(scans, len(stale), _seconds(catalog, stale, unknown))


def _seconds(catalog: Catalog, packages: Iterable[int], unknown: float) -> float:
    return sum(catalog.expected.get(package, unknown) for package in packages)
