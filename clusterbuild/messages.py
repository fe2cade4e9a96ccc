"""What crosses the wire to clusterdep, made of our values, and the other way round."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from clusterbuild.attempt import ScanWork
from clusterbuild.core.blame import Blame, Judgement, NoRequirement
from clusterbuild.core.hosts import Host, State
from clusterbuild.core.result import JobResult
from clusterbuild.engines import HostFacts, JobSpec, RequiredFile
from clusterbuild.package_file import valid_pkgname, valid_suffix
from clusterbuild.repository import Known, Repository
from clusterbuild.rules import Rules
from clusterbuild.snapshots import Snapshot
from clusterdep.api.hosts_file import is_archive
from clusterdep.api.v1 import clusterdep_pb2 as pb

BLAMES = {
    Blame.PACKAGE: pb.BLAME_PACKAGE,
    Blame.HOST: pb.BLAME_HOST,
    Blame.INFRASTRUCTURE: pb.BLAME_INFRASTRUCTURE,
    Blame.OPERATOR: pb.BLAME_OPERATOR,
}
STATES = {
    State.UNKNOWN: pb.HOST_STATE_UNKNOWN,
    State.PROBING: pb.HOST_STATE_PROBING,
    State.READY: pb.HOST_STATE_READY,
    State.DRAINING: pb.HOST_STATE_DRAINING,
    State.LOST: pb.HOST_STATE_LOST,
    State.QUARANTINED: pb.HOST_STATE_QUARANTINED,
    State.REFUSED: pb.HOST_STATE_REFUSED,
}
#: Below so many free bytes where a host builds it gets no job: every build would fail.
LEAST_DISK = 64 * 2**20
_ATTEMPT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PROFILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class MissingRequirementError(Exception):
    """A requirement that a grant names is not in the repository."""

    def __init__(self, case: NoRequirement) -> None:
        super().__init__(case)
        self.case = case


@dataclass(frozen=True)
class Sandbox:
    """The kind of sandbox jobs get on a host, and how many may run at once for it."""

    kind: str
    slots: int


def sandbox_of(facts: HostFacts, rules: Rules) -> Sandbox:
    """What a host can offer, by what it can do and what is configured.

    Several jobs at once need a sandbox each, because all use the same prefix. Raises
    ValueError saying what is missing.
    """
    if 0 < facts.disk_free < LEAST_DISK:
        free, least = facts.disk_free >> 20, LEAST_DISK >> 20
        raise ValueError(f"its disk is full: {free} MiB are free where it builds, not {least}")
    works = tuple(k for k in facts.sandboxes if k != "chroot" or rules.sandbox_base)
    kind = rules.sandbox
    if kind == "auto" and works:
        kind = works[0]
    if kind not in works:
        why = facts.no_sandboxes.get(kind, "")
        if kind == "chroot" and not rules.sandbox_base:
            why = "no sandbox_base is set to make its root of"
        raise ValueError(
            f"sandbox {kind} does not work here{f' ({why})' if why else ''}; those that do: "
            f"{', '.join(works) or 'none at all'}"
        )
    if kind == "none":
        return Sandbox("none", 1)
    return Sandbox(kind, rules.slots or max(1, facts.cores))


def wrong_with(grant: pb.Grant) -> str:
    """What keeps a grant from being done at all, if something does: names become paths."""
    if not _ATTEMPT.fullmatch(grant.attempt):
        return f"attempt {grant.attempt!r:.80} is no name"
    if not _PROFILE.fullmatch(grant.profile.name):
        return f"profile {grant.profile.name!r:.80} is no name"
    if not valid_pkgname(grant.pkgname):
        return f"{grant.pkgname!r:.80} is no package name"
    if not grant.profile.tree or not grant.profile.prefix:
        return f"profile {grant.profile.name} has no tree or no prefix"
    for needed in grant.requirements:
        plain = valid_pkgname(needed.pkgname) and valid_suffix(needed.suffix or ".tgz")
        if not plain or not _SHA256.fullmatch(needed.sha256):
            return f"requirement {needed.pkgname!r:.80} is no package file"
    return ""


def wrong_with_scan(grant: pb.ScanGrant) -> str:
    """The same of a scan."""
    if not _ATTEMPT.fullmatch(grant.attempt):
        return f"attempt {grant.attempt!r:.80} is no name"
    if not _PROFILE.fullmatch(grant.profile.name):
        return f"profile {grant.profile.name!r:.80} is no name"
    if not grant.profile.tree or not grant.profile.prefix:
        return f"profile {grant.profile.name} has no tree or no prefix"
    if bool(grant.pkgpaths) == grant.enumerate:
        return "a scan has either pkgpaths or the lists of the tree to look at"
    return ""


def like_build(grant: pb.ScanGrant) -> pb.Grant:
    """What a scan's grant has in common with a build's; its pkgname says what it is."""
    count = len(grant.pkgpaths)
    what = f"scan of {grant.pkgpaths[0]}" if count == 1 else f"scan of {count} pkgpaths"
    return pb.Grant(
        attempt=grant.attempt,
        fence=grant.fence,
        host=grant.host,
        expires=grant.expires,
        profile=grant.profile,
        pkgname="scan of the tree's lists" if grant.enumerate else what,
    )


def requirements_of(grant: pb.Grant, repository: Repository) -> tuple[RequiredFile, ...]:
    """The package files a grant needs; raises MissingRequirementError."""
    files = []
    for needed in grant.requirements:
        suffix = needed.suffix or ".tgz"
        path = repository.path_of(needed.sha256, suffix)
        if not path.is_file() or path.stat().st_size != needed.size:
            raise MissingRequirementError(NoRequirement(needed.pkgname, needed.sha256))
        files.append(
            RequiredFile(needed.pkgname, path, needed.sha256, needed.size, suffix, needed.direct)
        )
    return tuple(files)


def spec_of(
    grant: pb.Grant,
    repository: Repository,
    rules: Rules,
    *,
    sandbox: Sandbox,
    slots: int,
    snapshot: Snapshot,
) -> JobSpec:
    """What a host is told to do, by its rules; raises MissingRequirementError.

    Distfiles stay where they are in the tree: a snapshot has none.
    """
    profile = grant.profile
    base = rules.sandbox_base if sandbox.kind == "chroot" else ""
    return JobSpec(
        attempt=grant.attempt,
        pkgname=grant.pkgname,
        pkgpath=grant.pkgpath,
        tree=snapshot.path,
        snapshot=snapshot.digest,
        prefix=profile.prefix,
        pkgdb=profile.pkgdb,
        kit=Path(profile.kit) if profile.kit else None,
        make=profile.make,
        distdir=Path(profile.distdir or f"{profile.tree}/distfiles"),
        variables=tuple(grant.make_variables),
        requirements=requirements_of(grant, repository),
        make_jobs=grant.make_jobs,
        bootstrap=grant.bootstrap,
        usergroup_phase=grant.usergroup_phase,
        use_destdir=grant.use_destdir or "user-destdir",
        build_user=rules.build_user,
        sandbox=sandbox.kind,
        base_dir="" if is_archive(base) else base,
        base_file=Path(base) if is_archive(base) else None,
        layer_size=rules.sandbox_memory if sandbox.kind in ("overlay", "chroot") else 0,
        slots=slots,
        time_limit=rules.limit(grant.time_limit),
        stage_time_limit=rules.stage_time_limit,
        log_limit=rules.log_limit,
        search_path=rules.search_path,
    )


def offer_of(host: Host, facts: HostFacts | None, trouble: str) -> pb.HostOffer:
    """What clusterdep is told of a host; `trouble` of the dispatcher closes all of them."""
    offer = pb.HostOffer(
        name=host.name,
        state=STATES[host.state],
        reason=trouble or host.reason,
        slots=host.slots,
        free_slots=0 if trouble else host.free,
    )
    if facts is not None:
        offer.opsys = facts.opsys
        offer.os_version = facts.os_version
        offer.machine_arch = facts.machine_arch
        offer.cores = facts.cores
        offer.memory = facts.memory
        offer.disk_free = facts.disk_free
    return offer


def result_of(
    grant: pb.Grant,
    *,
    kept: Known | None,
    judgement: Judgement | None,
    result: JobResult | None,
    stage: str,
    log: Path,
) -> pb.Result:
    """What clusterdep is told of an attempt that is over; `kept` if and only if it was built."""
    told = pb.Result(
        attempt=grant.attempt,
        fence=grant.fence,
        built=kept is not None,
        make_jobs=grant.make_jobs,
        log=str(log),
    )
    for time in result.stages if result is not None else ():
        told.stages.add(stage=time.stage, wall=time.wall, cpu=time.cpu, exit=time.exit)
    if kept is not None:
        told.artifact.CopyFrom(artifact_of(kept))
    elif judgement is not None:
        told.blame = BLAMES[judgement.blame]
        told.message = judgement.message[:2000]
        told.stage = result.stage if result is not None else stage
    return told


def scan_result_of(scan: ScanWork, judgement: Judgement | None) -> pb.ScanResult:
    """What clusterdep is told of a scan that is over."""
    grant = scan.grant
    told = pb.ScanResult(attempt=grant.attempt, fence=grant.fence)
    if judgement is not None:
        told.blame, told.message = BLAMES[judgement.blame], judgement.message[:2000]
    elif scan.answered < len(grant.pkgpaths):
        told.blame = pb.BLAME_OPERATOR
        told.message = f"it took long: {scan.answered} of {len(grant.pkgpaths)} had their turn"
    else:
        told.done = True
        told.message = "; ".join(
            f"{'the tree' if where == '.' else where} could not be listed: {why}"
            for where, why in scan.problems
        )[:2000]
    return told


def artifact_of(known: Known) -> pb.Artifact:
    """A kept package file as clusterdep records it."""
    return pb.Artifact(
        pkgname=known.pkgname,
        sha256=known.sha256,
        size=known.size,
        content_digest=known.content_digest,
        summary=known.summary,
        suffix=known.suffix,
    )


def known_of(record: pb.ArtifactRecord, dispatcher: str = "") -> Known:
    """An artifact that clusterdep has recorded, as `dispatcher` sees it."""
    artifact = record.artifact
    return Known(
        pkgname=artifact.pkgname,
        sha256=artifact.sha256,
        size=artifact.size,
        suffix=artifact.suffix or ".tgz",
        summary=artifact.summary,
        package=(record.pkgpath, record.variant),
        content_digest=artifact.content_digest,
        current=record.current,
        built=record.built,
        own=record.dispatcher in ("", dispatcher),
    )
