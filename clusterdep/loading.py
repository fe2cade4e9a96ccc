"""A catalog from the database: the stored facts, folded."""

from __future__ import annotations

from clusterdep.catalog import Catalog
from clusterdep.core.leases import Leases
from clusterdep.facts import Artifact, Change, Entry, Pkgpath, Profile, runtime_patterns
from clusterdep.store.database import Reader, Row


def load(profile: Profile, store: Reader, leases: Leases) -> Catalog:
    """The catalog of a profile."""
    catalog = Catalog(profile, leases)
    change = Change(profile)
    for row in store.rows("pkgpaths", (profile.id,)):
        change.paths.append(Pkgpath(*row))
    places = {place.id: place for place in change.paths}
    for row in store.rows("records", (profile.id,)):
        change.records.append(_entry(row, places[row["pkgpath_id"]]))
    for row in store.rows("artifacts", (profile.id,)):
        change.artifacts[row["package_id"]] = artifact_of(row)
    for row in store.rows("ended_attempts", (profile.id,)):
        change.attempts.setdefault(row["package_id"], []).append(row)
    _requirements(catalog, change, store)
    for _ in catalog.apply(change):
        pass
    catalog.learn(
        (catalog.index[row["package_id"]], float(row["seconds"]))
        for row in store.rows("stage_totals", (profile.id,))
        if row["package_id"] in catalog.index
    )
    catalog.reopened.clear()
    return catalog


def _requirements(catalog: Catalog, change: Change, store: Reader) -> None:
    """What the records require. What is stored of an unsettled profile is not to be trusted."""
    profile = catalog.profile
    requires: dict[int, list[int]] = {entry.id: [] for entry in change.records}
    problems: dict[int, dict[str, None]] = {}
    if not profile.unsettled:
        for package_id, required_id in store.rows("requirement_ids", (profile.id,)):
            if required_id in requires:
                requires[package_id].append(required_id)
            else:
                catalog.strays.append((package_id, required_id))
        for row in store.rows("unresolved", (profile.id,)):
            problems.setdefault(row["package_id"], {})[row["problem"]] = None
    change.requirements = {
        package: (needed, "; ".join(problems.get(package, ())))
        for package, needed in requires.items()
    }


def artifact_of(row: Row) -> Artifact:
    """An artifact as the table artifact has it."""
    return Artifact(
        row["pkgname"],
        row["sha256"],
        row["size"],
        row["suffix"],
        row["content_digest"],
        row["input_key"],
        row["built_at"],
        row["attempt_id"] or "",
        runtime_patterns(row["summary"]),
        row["dispatcher"],
    )


def _entry(row: Row, place: Pkgpath) -> Entry:
    return Entry(
        row["package_id"],
        place,
        row["variant"],
        row["number"],
        row["pkgname"],
        row["skip_reason"],
        row["fail_reason"],
        bool(row["duplicate"]),
        row["weight"],
        row["digest"],
        row["fence"],
        row["held_why"] if row["held_at"] is not None else None,
    )
