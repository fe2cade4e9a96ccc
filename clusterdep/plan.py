"""What a delivery changes: computed before anything is written, with nothing but values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from clusterdep.catalog import Catalog
from clusterdep.core import resolve
from clusterdep.delivery import Delivery, Identity, Staged
from clusterdep.facts import Entry, Pkgpath

_ALL_DEPENDS = re.compile(rb"^ALL_DEPENDS=(.*)$", re.MULTILINE)

#: A row of the table requirement: package, position, pattern, location, required, problem.
Row = tuple[int, int, str, str, int | None, str]


class Put(NamedTuple):
    """A record that is new or changed."""

    pkgpath: str
    variant: str
    record: Staged


@dataclass(slots=True)
class Plan:
    """What has to be written. Packages by their ids."""

    positions: dict[str, int] = field(default_factory=dict)  # of pkgpaths that are new or moved
    put: dict[int, Put] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)
    dropped_paths: list[str] = field(default_factory=list)
    duplicates: dict[int, bool] = field(default_factory=dict)  # whose mark changed, or is new
    touched: list[int] = field(default_factory=list)  # whose requirements or records changed
    #: All there are now: package, pattern, requirement, pbulk's choice.
    differences: list[tuple[int, str, int, int]] = field(default_factory=list)
    added: int = 0
    changed: int = 0


def place(delivery: Delivery, paths: Mapping[str, Pkgpath]) -> tuple[dict[str, int], list[str]]:
    """Positions of pkgpaths that are new or moved, and pkgpaths that are no more.

    An enumeration sets the order; without one, what is known stays where it is and what is
    new follows. What replaces everything brings its own order.
    """
    assert delivery.end is not None
    enumeration = list(delivery.end.enumeration)
    if not enumeration and not delivery.replaces:
        new = [path for path in delivery.scans if path not in paths]
        if not new:
            return {}, []
        after = 1 + max((known.position for known in paths.values()), default=-1)
        return {path: after + at for at, path in enumerate(new)}, []
    order = dict.fromkeys(enumeration)
    order.update(dict.fromkeys(delivery.scans))
    positions = {
        path: at for at, path in enumerate(order) if path not in paths or paths[path].position != at
    }
    return positions, [path for path in paths if path not in order]


def make_plan(
    delivery: Delivery,
    resolver: resolve.Resolver | None,
    rule: resolve.Rule,
    ids: Mapping[Identity, int],
    *,
    standing: Mapping[int, tuple[Entry, bytes]],
    paths: Mapping[str, Pkgpath],
    order: Mapping[int, tuple[int, int]],
) -> tuple[Plan, resolve.Resolver]:
    """What a delivery changes, and the resolver, brought up to date; None: there is nothing yet.

    `standing` are the packages in pkgpaths that it has a good scan of, or that it drops,
    with the texts of their records; `order` is where packages of moved pkgpaths now stand.
    """
    plan = Plan()
    plan.positions, plan.dropped_paths = place(delivery, paths)
    incoming = {
        ids[path, variant]: Put(path, variant, record)
        for path, scan in delivery.scans.items()
        for variant, record in scan.records.items()
    }
    plan.dropped = sorted(standing.keys() - incoming.keys())
    for package, put in incoming.items():
        old = standing.get(package)
        if old is None:
            plan.added += 1
        elif (old[1], old[0].number) != (put.record.text, put.record.number):
            plan.changed += 1
        else:
            continue
        plan.put[package] = put
    packages = [_incoming(package, put, plan, paths) for package, put in plan.put.items()]
    before: dict[int, int] = {}
    if resolver is None:
        resolver = resolve.Resolver(packages, rule)
        touched = set(plan.put)
    else:
        before = dict(resolver.duplicates())
        touched = resolver.reorder({p: at for p, at in order.items() if p not in plan.put})
        touched |= resolver.apply(packages, plan.dropped)
    now = dict(resolver.duplicates())
    gone = set(plan.dropped)
    for package in (before.keys() ^ now.keys()) - gone:
        plan.duplicates[package] = package in now
    plan.touched = [*plan.put, *(touched - plan.put.keys() - gone)]
    plan.differences = differences(resolver)
    return plan, resolver


def differences(resolver: resolve.Resolver) -> list[tuple[int, str, int, int]]:
    """Where pbulk would have chosen otherwise: package, pattern, requirement, pbulk's choice."""
    return [
        (package, one.pattern.decode(errors="backslashreplace"), one.chosen, one.pbulk)
        for package, some in resolver.differences.items()
        for one in some
    ]


def _incoming(package: int, put: Put, plan: Plan, paths: Mapping[str, Pkgpath]) -> resolve.Package:
    """What the resolver needs of a record that came."""
    record, position = put.record, plan.positions.get(put.pkgpath)
    return resolve.Package(
        package,
        (paths[put.pkgpath].position if position is None else position, record.number),
        record.pkgname.encode(),
        record.depends,
        put.pkgpath.encode(),
        not (record.skip_reason or record.fail_reason),
    )


def stored_package(entry: Entry, text: bytes, tokens: dict[bytes, bytes]) -> resolve.Package:
    """What the resolver needs of a record that is stored; `tokens` has each of them once."""
    found = _ALL_DEPENDS.search(text)
    depends = tuple([tokens.setdefault(t, t) for t in found[1].split()]) if found else ()
    return resolve.Package(
        entry.id,
        entry.order,
        entry.pkgname.encode(),
        depends,
        entry.pkgpath.encode(),
        not (entry.skip_reason or entry.record_fails),
    )


class Texts:
    """Pattern and location of dependency tokens as the database has them, each made once."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[bytes, str, str]] = {}

    def of(self, token: bytes) -> tuple[bytes, str, str]:
        """(pattern, pattern as text, location as text)."""
        known = self._known.get(token)
        if known is None:
            parsed = resolve.parse_token(token)
            known = self._known[token] = (
                parsed.pattern,
                (parsed.pattern or token).decode(errors="backslashreplace"),
                parsed.pkgpath.decode(errors="backslashreplace"),
            )
        return known


def reconciled(catalog: Catalog, resolver: resolve.Resolver) -> Plan:
    """What has to be written for the database to say what the resolver does.

    Of an unsettled profile everything, as what is stored may be anything.
    """
    plan = Plan(differences=differences(resolver))
    double = dict(resolver.duplicates())
    for package_id, package in catalog.index.items():
        required, problem = requires_of(resolver, package_id)
        known = [catalog.entries[other].id for other in catalog.graph.requires[package]]
        if (
            catalog.profile.unsettled
            or list(required) != known
            or problem != catalog.problems.get(package, "")
        ):
            plan.touched.append(package_id)
        if catalog.entries[package].duplicate != (package_id in double):
            plan.duplicates[package_id] = package_id in double
    return plan


def requirement_rows(resolver: resolve.Resolver, package: int, texts: Texts) -> Iterator[Row]:
    """Rows of the table requirement: one for each distinct dependency token of the package."""
    resolution = resolver.resolution(package)
    if resolution is None:
        return
    problems = {problem.subject: problem for problem in resolution.problems}
    tokens = resolver.package(package).depends
    choices = dict(zip(reversed(tokens), reversed(resolution.choices), strict=True))
    for position, token in enumerate(dict.fromkeys(tokens)):
        pattern, text, location = texts.of(token)
        required = choices[token]
        problem = None if required is not None else problems.get(pattern) or problems.get(token)
        yield package, position, text, location, required, "" if not problem else str(problem)


def requires_of(resolver: resolve.Resolver, package: int) -> tuple[Sequence[int], str]:
    """The distinct required packages of a package, and what is unresolved."""
    resolution = resolver.resolution(package)
    if resolution is None:
        return (), ""
    return resolution.requires, "; ".join(map(str, resolution.problems))
