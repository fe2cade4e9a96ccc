"""Packages by what people call them, and names that get into each other's way."""

from __future__ import annotations

from collections.abc import Sequence

from clusterdep.api.errors import Fault, Kind
from clusterdep.catalog import Catalog


def find(catalog: Catalog, text: str, variant: str = "") -> int:
    """The one package that a pkgname, pkgpath or pkgbase names.

    Raises Fault NOT_FOUND, or AMBIGUOUS with the candidates.
    """
    entries = catalog.entries
    place = catalog.paths.get(text)
    for found in (
        catalog.by_name.get(text, []),
        [] if place is None else place.packages,
        catalog.by_base.get(text, []),
    ):
        ordered = sorted(found, key=lambda package: entries[package].order)
        fitting = [p for p in ordered if not variant or entries[p].variant == variant]
        standing = [p for p in fitting if not entries[p].duplicate] or fitting
        if len(standing) == 1:
            return standing[0]
        if standing:
            raise _ambiguous(catalog, text, standing)
    if place is not None and place.error:
        raise Fault(
            Kind.NOT_FOUND,
            f"{text} has no packages: its scan failed: {place.error.strip()}",
        )
    raise Fault(
        Kind.NOT_FOUND,
        f"profile {catalog.profile.name} has no package '{text}'",
        "name it as PKGNAME, PKGBASE or category/directory",
    )


def _ambiguous(catalog: Catalog, text: str, candidates: Sequence[int]) -> Fault:
    names = [
        f"{e.pkgname} ({e.variant})" if e.variant else e.pkgname
        for e in map(catalog.entries.__getitem__, candidates[:10])
    ]
    more = f" and {len(candidates) - 10} more" if len(candidates) > 10 else ""
    return Fault(
        Kind.AMBIGUOUS,
        f"'{text}' is more than one package of profile {catalog.profile.name}: "
        f"{', '.join(names)}{more}",
        "name one of them by its PKGNAME, or with --variant",
    )


def collisions(catalog: Catalog) -> list[tuple[int, int, int]]:
    """Packages with two requirements of one pkgbase, which can not be installed together.

    (package, one of the two, the other), in scan order. Direct requirements only: what
    those need when they are installed is not in a record, which does not tell it from
    what they need when they are built.
    """
    found = []
    entries = catalog.entries
    for packages in catalog.by_base.values():
        if len(packages) < 2:
            continue
        first: dict[int, int] = {}
        for required in sorted(packages, key=lambda package: entries[package].order):
            for package in catalog.graph.dependents[required]:
                if first.setdefault(package, required) != required:
                    found.append((package, first[package], required))
    return sorted(found, key=lambda one: [entries[package].order for package in one])
