"""Messages of the contract, made from facts."""

from __future__ import annotations

from clusterdep import naming
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.core import scanindex
from clusterdep.core.graph import State
from clusterdep.core.leases import Lease
from clusterdep.core.status import Evidence, Status
from clusterdep.facts import Profile, key_line
from clusterdep.ledger import Ledger

STATUSES: dict[Status, pb.Status] = {
    status: getattr(pb, f"STATUS_{status.name}") for status in Status
}


def profile_message(profile: Profile) -> pb.Profile:
    """A profile as clients see it."""
    return pb.Profile(
        name=profile.name,
        tree=profile.tree,
        prefix=profile.prefix,
        pkgdb=profile.pkgdb,
        kit=profile.kit,
        make=profile.make,
        opsys=profile.opsys,
        os_version=profile.os_version,
        machine_arch=profile.machine_arch,
        selection=profile.selection,
        distdir=profile.distdir,
        policy=profile.policy,
        parent=profile.parent,
        toolchain=profile.toolchain,
        complete=profile.complete,
        resolver=profile.resolver,
        follow=profile.follow,
        follow_seconds=profile.follow_seconds,
        followed=profile.followed,
        overlays=[pb.Overlay(at=o.at, tree=o.tree, follow=o.follow) for o in profile.overlays],
        scans=profile.scans,
    )


def package_message(
    catalog: Catalog, package: int, *, reason: bool = True, depth: bool = False
) -> pb.Package:
    """A package as lists show it; `depth` costs a walk over its dependents."""
    entry = catalog.entries[package]
    return pb.Package(
        profile=catalog.profile.name,
        pkgpath=entry.pkgpath,
        variant=entry.variant,
        pkgname=entry.pkgname,
        status=STATUSES[catalog.status(package)],
        reason=sentence(catalog, package) if reason else "",
        selected=package in catalog.selected,
        needed=package in catalog.needed,
        bottom_level=catalog.level(package),
        depth=catalog.graph.depth(package) if depth else 0,
    )


def grant_message(ledger: Ledger, lease: Lease) -> pb.Grant:
    """Everything needed to do a job; a lease whose package is gone has only what is known."""
    catalog = ledger.catalogs[lease.profile]
    attempt = ledger.store.row("attempt", (lease.attempt,))
    grant = pb.Grant(
        attempt=lease.attempt,
        fence=lease.fence,
        host=lease.host,
        expires=lease.expires,
        profile=profile_message(catalog.profile),
        pkgname=attempt["pkgname"] if attempt else "",
        make_jobs=attempt["make_jobs"] if attempt else 0,
        input_key=lease.input_key,
    )
    package = catalog.index.get(lease.package)
    if package is None:
        return grant
    entry = catalog.entries[package]
    record = _record(ledger, lease.package)
    grant.pkgpath = entry.pkgpath
    grant.variant = entry.variant
    grant.expected_seconds = catalog.expected_seconds(package)
    names = [catalog.entries[other].pkgname.encode() for other in catalog.graph.requires[package]]
    if record is not None:
        grant.record = scanindex.with_depends(record.raw, names)
        grant.make_variables.extend(word.decode() for word in record.make_variables)
        grant.bootstrap = record.bootstrap
        grant.usergroup_phase = record.usergroup_phase.decode(errors="backslashreplace")
        grant.use_destdir = record.use_destdir.decode(errors="backslashreplace")
        if not record.make_jobs_safe:
            grant.make_jobs = 1
    for other, direct in catalog.runtime_closure(package):
        artifact = catalog.artifacts.get(other)
        if artifact is not None:
            grant.requirements.add(
                pkgname=artifact.pkgname,
                sha256=artifact.sha256,
                size=artifact.size,
                suffix=artifact.suffix,
                direct=direct,
            )
    return grant


def _record(ledger: Ledger, package_id: int) -> scanindex.Record | None:
    row = ledger.store.row("record_text", (package_id,))
    if row is None:
        return None
    record = scanindex.read(scanindex.Text(1, 1, row["text"]))
    return record if isinstance(record, scanindex.Record) else None


def sentence(catalog: Catalog, package: int) -> str:
    """One sentence on why a package is what it is; empty where that speaks for itself."""
    status = catalog.status(package)
    entry = catalog.entries[package]
    if status is Status.SKIPPED:
        return "an earlier record has this PKGNAME" if entry.duplicate else entry.skip_reason
    if status is Status.PREFAILED:
        return entry.fail_reason
    if status is Status.BLOCKED:
        return _blocked(catalog, package)
    if status is Status.FAILED:
        failure = catalog.failures[package]
        where = f"in stage {failure.stage}: " if failure.stage else ""
        return where + failure.message
    if status is Status.UNRESOLVED:
        return catalog.problems.get(package, "a pattern it asks for matches no package")
    if status is Status.HELD:
        return f"held: {entry.held}"
    if status is Status.LEASED:
        lease = catalog.lease(package)
        return "" if lease is None else f"on {lease.host}"
    if status is Status.WAITING:
        graph = catalog.graph
        waits = [o for o in graph.requires[package] if graph.state[o] is not State.BUILT]
        first = ", ".join(catalog.entries[o].pkgname for o in waits[:3])
        return f"for {first}" + (f" and {len(waits) - 3} more" if len(waits) > 3 else "")
    return ""


def _blocked(catalog: Catalog, package: int) -> str:
    if catalog.graph.state[package] is State.CYCLE:
        return f"in a cycle: {cycle_text(catalog, package)}"
    chain = catalog.graph.chain(package)
    cause = chain[-1]
    word = {
        State.CYCLE: "is in a cycle",
        State.FAILED: "failed",
        State.SKIPPED: "is skipped",
        State.PREFAILED: "is marked as failing",
        State.UNRESOLVED: "is unresolved",
    }[catalog.graph.state[cause]]
    return f"{' needs '.join(catalog.entries[p].pkgname for p in chain)}, which {word}"


def cycle_text(catalog: Catalog, package: int) -> str:
    """The cycle a package stands in, or one of those its component has."""
    cycle = catalog.graph.cycles.get(package, [])
    if package in cycle:
        at = cycle.index(package)
        cycle = [*cycle[at:], *cycle[:at]]
    return " needs ".join(catalog.entries[p].pkgname for p in [*cycle, *cycle[:1]])


def evidence_message(evidence: Evidence) -> pb.Evidence:
    """An answer to "why?" as clients see it."""
    return pb.Evidence(
        subject=evidence.subject,
        status=STATUSES[evidence.status],
        text=evidence.text,
        causes=[evidence_message(cause) for cause in evidence.causes],
    )


def scan_failure_message(pkgpath: str, error: str) -> pb.ScanFailure:
    """A failed scan by the line of its error that says most."""
    return pb.ScanFailure(pkgpath=pkgpath, error=key_line(error))


def difference_messages(catalog: Catalog, most: int) -> list[pb.Difference]:
    """The first requirements that pbulk would have chosen otherwise, in scan order."""
    index, entries = catalog.index, catalog.entries
    known = [one for one in catalog.differences if {one[0], one[2], one[3]} <= index.keys()]
    known.sort(key=lambda one: entries[index[one[0]]].order)
    return [
        pb.Difference(
            pkgname=entries[index[package]].pkgname,
            pattern=pattern,
            chosen=entries[index[chosen]].pkgname,
            pbulk=entries[index[other]].pkgname,
        )
        for package, pattern, chosen, other in known[:most]
    ]


def collision_messages(catalog: Catalog, most: int) -> list[pb.Collision]:
    """The first packages with requirements that can not be installed together."""
    return [
        pb.Collision(
            pkgname=catalog.entries[package].pkgname,
            first=catalog.entries[one].pkgname,
            second=catalog.entries[other].pkgname,
        )
        for package, one, other in naming.collisions(catalog)[:most]
    ]
