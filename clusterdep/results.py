"""Results: what is made of the end of an attempt."""

from __future__ import annotations

import re

from clusterdep import origins
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.attempts import Attempts
from clusterdep.catalog import Catalog
from clusterdep.core import leases as rules
from clusterdep.core.graph import State
from clusterdep.core.leases import AttemptState, Refused
from clusterdep.facts import Artifact, runtime_patterns
from clusterdep.ledger import Ledger
from clusterdep.store.database import Row

BLAMES = {
    pb.BLAME_PACKAGE: "package",
    pb.BLAME_HOST: "host",
    pb.BLAME_INFRASTRUCTURE: "infrastructure",
    pb.BLAME_OPERATOR: "operator",
}
_HEX = re.compile(r"[0-9a-f]{64}")


class Results:
    """Takes results, once each, from whoever holds the lease or was the last to."""

    def __init__(self, ledger: Ledger, attempts: Attempts) -> None:
        self.ledger = ledger
        self._attempts = attempts

    def report(self, result: pb.Result) -> pb.Verdict:
        """What is made of the result of an attempt."""
        wrong = _invalid(result)
        if wrong:
            return _verdict(result, pb.Verdict.KIND_REFUSED, wrong)
        row = self.ledger.store.row("attempt", (result.attempt,))
        state = self._attempts.state_of(row, result.fence)
        event = rules.reported(result.built, result.blame == pb.BLAME_PACKAGE)
        if state in (AttemptState.BUILT, AttemptState.FAILED, AttemptState.RETURNED):
            return _verdict(result, pb.Verdict.KIND_DUPLICATE, "it was recorded before")
        try:
            after = rules.advance(state, event)
        except Refused as refused:
            return _verdict(result, pb.Verdict.KIND_REFUSED, str(refused))
        assert row is not None
        if result.built and result.artifact.pkgname != row["pkgname"]:
            why = f"the artifact is {result.artifact.pkgname}, not {row['pkgname']}"
            return _verdict(result, pb.Verdict.KIND_REFUSED, why)
        if after is AttemptState.LAPSED:
            return _verdict(result, pb.Verdict.KIND_ACCEPTED, "the job is open again already")
        return self._record(row, result, after)

    def _record(self, row: Row, result: pb.Result, after: AttemptState) -> pb.Verdict:
        store, now = self.ledger.store, self.ledger.clock()
        found = self._attempts.find(row["package_id"])
        name = self._profile_of(row, found)
        blame = "" if result.built else BLAMES[result.blame]
        ending = {
            "attempt": row["id"],
            "ended_at": now,
            "outcome": after.value,
            "blame": blame,
            "stage": result.stage,
            "message": result.message,
            "make_jobs": result.make_jobs,
            "peak_memory": result.peak_memory,
            "disk": result.disk,
            "log": result.log,
        }
        origin = self._origin(row, found) if result.built else origins.UNKNOWN
        with self.ledger.transaction():
            store.run("drop_lease", (row["package_id"], row["id"], row["fence"]))
            store.run("end_attempt", ending)
            store.run_many(
                "add_stage",
                [
                    (row["id"], position, s.stage, s.wall, s.cpu, s.exit)
                    for position, s in enumerate(result.stages)
                ],
            )
            if result.built:
                store.run(
                    "add_artifact", _artifact_row(row, result.artifact, now) | origin.columns()
                )
            self.ledger.event(
                name,
                after.value,
                row["pkgname"],
                result.message,
                attempt=row["id"],
                host=row["host"],
                blame=blame,
                stage=result.stage,
                seconds=round(sum(s.wall for s in result.stages), 3),
                log=result.log,
            )
        return self._apply(row, result, ending, found)

    def _origin(self, row: Row, found: tuple[Catalog, int] | None) -> origins.Origin:
        """What the artifact of an attempt was made of; its lease knows, if it has one still."""
        lease = self.ledger.store.row("lease_origin", (row["id"],))
        if lease is not None:
            return origins.of_row(lease)
        if found is not None and found[0].keys.get(found[1]) == row["input_key"]:
            return origins.current(self.ledger.store, *found)
        return origins.UNKNOWN

    def _profile_of(self, row: Row, found: tuple[Catalog, int] | None) -> str:
        if found is not None:
            return found[0].profile.name
        lease = self.ledger.leases.of_attempt(row["id"])
        return "" if lease is None else lease.profile

    def _apply(
        self,
        row: Row,
        result: pb.Result,
        ending: dict[str, object],
        found: tuple[Catalog, int] | None,
    ) -> pb.Verdict:
        lease = self.ledger.leases.of_attempt(row["id"])
        if lease is not None:
            self.ledger.leases.end(lease.attempt)
        if found is None:
            return _verdict(result, pb.Verdict.KIND_STALE, "the tree has the package no more")
        catalog, package = found
        catalog.note_attempt(
            package, {**ending, **{k: row[k] for k in ("id", "input_key", "host")}}
        )
        if result.built:
            catalog.note_artifact(package, _artifact(row, result.artifact, ending))
            catalog.note_seconds(package, sum(s.wall for s in result.stages))
        else:
            catalog.graph.refresh(package)
        if lease is not None:
            catalog.release(lease)
        if result.built and catalog.graph.state[package] is not State.BUILT:
            why = "what it was built from has changed meanwhile"
            return _verdict(result, pb.Verdict.KIND_STALE, why)
        return _verdict(result, pb.Verdict.KIND_ACCEPTED, "")


def _invalid(result: pb.Result) -> str:
    """What is wrong with a result, if something is."""
    if not result.built:
        return "" if result.blame in BLAMES else "it was not built, and blame is not given"
    return flaw_of(result.artifact)


def flaw_of(artifact: pb.Artifact) -> str:
    """What is wrong with an artifact as it was told of, if something is."""
    if not _HEX.fullmatch(artifact.sha256):
        return "artifact.sha256 is not 64 hexadecimal digits"
    if artifact.size <= 0:
        return "artifact.size is not positive"
    return ""


def _verdict(result: pb.Result, kind: pb.Verdict.Kind, why: str) -> pb.Verdict:
    return pb.Verdict(attempt=result.attempt, kind=kind, why=why)


def _artifact_row(row: Row, artifact: pb.Artifact, now: float) -> dict[str, object]:
    return {
        "package_id": row["package_id"],
        "attempt_id": row["id"],
        "pkgname": artifact.pkgname,
        "sha256": artifact.sha256,
        "size": artifact.size,
        "suffix": artifact.suffix or ".tgz",
        "content_digest": artifact.content_digest or artifact.sha256,
        "input_key": row["input_key"],
        "summary": artifact.summary,
        "built_at": now,
        "dispatcher": row["dispatcher"],
    }


def _artifact(row: Row, artifact: pb.Artifact, ending: dict[str, object]) -> Artifact:
    return Artifact(
        pkgname=artifact.pkgname,
        sha256=artifact.sha256,
        size=artifact.size,
        suffix=artifact.suffix or ".tgz",
        content_digest=artifact.content_digest or artifact.sha256,
        input_key=row["input_key"],
        built_at=float(str(ending["ended_at"])),
        attempt=row["id"],
        runtime=runtime_patterns(artifact.summary),
        dispatcher=row["dispatcher"],
    )
