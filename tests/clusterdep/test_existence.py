"""What exists already: when it is current, and why not, over real gRPC and real SQLite."""

from __future__ import annotations

import hashlib
import json
import sqlite3

import pytest
from dep_daemon import Daemon, built, host, record

from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_feed import put

CHAIN = (record("liba-1.0"), record("libb-1.0", ["liba>=1"]), record("prog-1.0", ["libb-[0-9]*"]))
ALL_BUILT = {"liba-1.0": "built", "libb-1.0": "built", "prog-1.0": "built"}


async def build_all(dep: Daemon, content: str = "", dispatcher: str = "d") -> dict[str, pb.Result]:
    """Builds whatever is open, and what becomes open; returns the results by pkgname."""
    results: dict[str, pb.Result] = {}
    new: list[pb.Result] = []
    while True:
        answer = await dep.exchange(
            results=new, hosts=[host(free=8, slots=8)], dispatcher=dispatcher
        )
        if not answer.grants:
            return results
        new = [built(grant, content and f"{grant.pkgname} {content}") for grant in answer.grants]
        results |= {result.artifact.pkgname: result for result in new}


async def scan(
    dep: Daemon, text: bytes, files: dict[str, str] | None, pkgpath: str = "cat/liba"
) -> None:
    """The scan of one pkgpath, with the files that a build of it reads."""
    listed = {f"{pkgpath}/{name}": content for name, content in (files or {}).items()}
    inputs = [
        pb.InputFile(path=path, digest=hashlib.sha256(content.encode()).hexdigest())
        for path, content in listed.items()
    ]
    digest = hashlib.sha256(repr(sorted(listed.items())).encode()).hexdigest() if files else ""
    part = pb.PutScan(pkgpath=pkgpath, records=text, inputs_digest=digest, inputs=inputs)
    header = pb.PutHeader(profile="p", mode=pb.PutHeader.MODE_MERGE)
    await put(dep.caller, header, [pb.PutRecordsRequest(scan=part)], pb.PutEnd())


async def stale(dep: Daemon, package: str) -> list[str]:
    detail = await dep.caller.query.GetPackage(pb.PackageRequest(profile="p", package=package))
    return list(detail.stale)


async def events(dep: Daemon, kind: str) -> list[tuple[str, str, dict[str, object]]]:
    return [
        (event.subject, event.cause, json.loads(event.detail))
        async for event in dep.caller.query.Watch(pb.WatchRequest())
        if event.kind == kind
    ]


async def profile(dep: Daemon, **fields: str) -> None:
    request = pb.PutProfileRequest(profile=pb.Profile(name="p", **fields))
    await dep.caller.admin.PutProfile(request)


# --- why ------------------------------------------------------------------------------------


async def test_a_second_run_does_nothing(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    assert len(await build_all(dep)) == 3
    await dep.load(*CHAIN)
    assert await dep.statuses() == ALL_BUILT
    assert await build_all(dep) == {}
    assert await stale(dep, "prog") == []
    assert await events(dep, "stale") == []


async def test_a_changed_file_is_named(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await scan(dep, CHAIN[0], {"Makefile": "1", "distinfo": "1", "patch-aa": "1"})
    await build_all(dep)
    await scan(dep, CHAIN[0], {"Makefile": "1", "distinfo": "2", "patch-ab": "1"})
    said = [
        "file cat/liba/distinfo changed",
        "file cat/liba/patch-ab is new",
        "file cat/liba/patch-aa is gone",
    ]
    assert await stale(dep, "liba") == said
    assert (await dep.statuses())["libb-1.0"] == "waiting"
    assert await stale(dep, "libb") == []  # whether it is, is not known yet
    assert await events(dep, "stale") == [("liba-1.0", "; ".join(said), {"reasons": said})]
    why = await dep.caller.query.Why(pb.PackageRequest(profile="p", package="liba"))
    assert [(c.subject, c.text) for c in why.causes] == [("artifact liba-1.0", s) for s in said]
    assert await build_all(dep) and await dep.statuses() == ALL_BUILT
    assert await stale(dep, "liba") == []


async def test_record_and_toolchain_are_named(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await build_all(dep)
    await dep.load(record("liba-1.1", USE_DESTDIR="destdir"), merge=True)
    assert await stale(dep, "liba") == [
        "it is liba-1.1 now, not liba-1.0",
        "USE_DESTDIR is 'destdir' now, not 'user-destdir'",
    ]
    await profile(dep, toolchain="gcc-13")
    assert "the toolchain is 'gcc-13' now, not empty" in await stale(dep, "liba")
    assert (await events(dep, "stale"))[0][0] == "liba-1.1"


async def test_what_was_granted_is_what_it_was_made_of(dep: Daemon) -> None:
    """Also if the record changes while it is built, and the daemon is started again."""
    await dep.load(*CHAIN[:1])
    grant = (await dep.exchange()).grants[0]
    await dep.load(record("liba-1.0", CATEGORIES="other"), merge=True)
    await dep.stop()
    await dep.start()
    answer = await dep.exchange(results=[built(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_STALE
    assert await stale(dep, "liba") == ["CATEGORIES is 'other' now, not 'cat'"]


async def test_many_at_once_are_counted(dep: Daemon) -> None:
    await dep.load(*(record(f"lib{number}-1.0") for number in range(30)))
    await build_all(dep)
    await profile(dep, toolchain="gcc-13")
    ((subject, cause, detail),) = await events(dep, "stale")
    assert (subject, detail) == ("p", {"packages": 30})
    assert cause.endswith("-1.0: the toolchain is 'gcc-13' now, not empty")


# --- early cut-off --------------------------------------------------------------------------


async def test_the_same_content_leaves_dependents_built(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await build_all(dep, "one")
    await dep.load(record("liba-1.0", CATEGORIES="other"), merge=True)
    assert list(await build_all(dep, "one")) == ["liba-1.0"]
    assert await dep.statuses() == ALL_BUILT
    assert [subject for subject, _, _ in await events(dep, "stale")] == ["liba-1.0"]


async def test_other_content_is_the_reason(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await build_all(dep, "one")
    await dep.load(record("liba-1.0", CATEGORIES="other"), merge=True)
    grant = (await dep.exchange()).grants[0]
    await dep.exchange(results=[built(grant, "two")], hosts=[])
    assert await stale(dep, "libb") == [
        "requirement liba-1.0 was built again, and what is in it is not the same"
    ]
    assert await dep.statuses() == ALL_BUILT | {"libb-1.0": "open", "prog-1.0": "waiting"}
    # It comes out the same: what requires it is current again.
    grant = (await dep.exchange()).grants[0]
    await dep.exchange(results=[built(grant, "libb-1.0 one")], hosts=[])
    assert await dep.statuses() == ALL_BUILT


async def test_another_version_of_a_requirement_is_the_reason(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await build_all(dep)
    await dep.load(record("liba-1.1"), merge=True)
    grant = (await dep.exchange()).grants[0]
    await dep.exchange(results=[built(grant)], hosts=[])
    assert await stale(dep, "libb") == ["requirement liba-1.0 is liba-1.1 now"]


# --- policies -------------------------------------------------------------------------------


async def test_a_policy_may_change_at_any_time(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await build_all(dep)
    await dep.load(record("liba-1.1"), record("libb-1.0", ["liba>=1"], RESTRICTED="no"), merge=True)
    assert await dep.statuses() == {
        "liba-1.1": "open",
        "libb-1.0": "waiting",
        "prog-1.0": "waiting",
    }

    await profile(dep, policy="exists")
    assert await dep.statuses() == {"liba-1.1": "built", "libb-1.0": "built", "prog-1.0": "built"}
    assert await build_all(dep) == {}
    why = await dep.caller.query.Why(pb.PackageRequest(profile="p", package="liba"))
    assert why.text == "built liba-1.0; that there is one is enough"

    await profile(dep, policy="version")
    assert await dep.statuses() == {
        "liba-1.1": "open",
        "libb-1.0": "waiting",
        "prog-1.0": "waiting",
    }
    assert await stale(dep, "liba") == ["it is liba-1.1 now, not liba-1.0"]
    assert list(await build_all(dep)) == ["liba-1.1"]
    assert set((await dep.statuses()).values()) == {"built"}

    await profile(dep, policy="inputs")
    assert await dep.statuses() == {"liba-1.1": "built", "libb-1.0": "open", "prog-1.0": "waiting"}
    assert await stale(dep, "libb") == [
        "RESTRICTED is 'no' now, not empty",
        "requirement liba-1.0 is liba-1.1 now",
    ]
    await dep.stop()
    await dep.start()
    assert await stale(dep, "libb") != []
    assert list(await build_all(dep)) == ["libb-1.0"]  # whose content is the same
    assert set((await dep.statuses()).values()) == {"built"}
    check = await dep.caller.admin.CheckDatabase(pb.CheckDatabaseRequest())
    assert check.sound, check.findings


@pytest.mark.parametrize("policy", ["exists", "version", "inputs"])
async def test_what_is_gone_is_built_again_by_every_policy(dep: Daemon, policy: str) -> None:
    await dep.load(*CHAIN)
    await profile(dep, policy=policy)
    results = await build_all(dep)
    gone = results["libb-1.0"].artifact.sha256
    request = pb.DeclareArtifactsRequest(profile="p", missing=[gone])
    assert (await dep.caller.feed.DeclareArtifacts(request)).forgotten == 1
    assert await dep.statuses() == ALL_BUILT | {"libb-1.0": "open", "prog-1.0": "waiting"}
    assert await stale(dep, "libb") == [
        "the package file of libb-1.0 is gone from the repository, or damaged"
    ]
    assert list(await build_all(dep)) == ["libb-1.0"]
    assert await dep.statuses() == ALL_BUILT


async def test_an_ordered_rebuild_is_the_reason(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await build_all(dep)
    await dep.caller.admin.Rebuild(pb.RebuildRequest(profile="p", packages=["libb"]))
    (why,) = await stale(dep, "libb")
    assert "order" in why
    assert list(await build_all(dep)) == ["libb-1.0"]
    assert await stale(dep, "libb") == []


async def test_a_dispatcher_does_not_miss_what_another_keeps(dep: Daemon) -> None:
    await dep.load(*CHAIN[:1])
    results = await build_all(dep, dispatcher="one")
    records = dep.caller.query.ListArtifacts(pb.ListArtifactsRequest(profile="p"))
    assert [r.dispatcher async for r in records] == ["one"]
    request = pb.DeclareArtifactsRequest(
        profile="p", missing=[results["liba-1.0"].artifact.sha256], dispatcher="other"
    )
    assert (await dep.caller.feed.DeclareArtifacts(request)).forgotten == 0
    request.dispatcher = "one"
    assert (await dep.caller.feed.DeclareArtifacts(request)).forgotten == 1


# --- files behind digests -------------------------------------------------------------------


async def test_listings_are_kept_as_long_as_something_refers_to_them(dep: Daemon) -> None:

    def kept() -> int:
        connection = sqlite3.connect(dep.state / "clusterdep.db")
        try:
            return int(connection.execute("SELECT count(*) FROM inputs").fetchone()[0])
        finally:
            connection.close()

    await dep.load(*CHAIN[:1])
    await scan(dep, CHAIN[0], {"Makefile": "1"})
    await build_all(dep)
    for number in range(2, 5):
        await scan(dep, CHAIN[0], {"Makefile": str(number)})
    assert kept() == 4
    await dep.stop()
    await dep.start()  # and looks after its file at once
    await dep.statuses()
    for _ in range(100):
        if kept() == 2:
            break
        await dep.exchange(wait=0.05, hosts=[])
    assert kept() == 2  # of the artifact, and of now
    assert await stale(dep, "liba") == ["file cat/liba/Makefile changed"]


# --- the rule of choice ---------------------------------------------------------------------

CHOICE = (
    record("libx-1.0"),
    record("liby-1.0", PKG_SKIP_REASON='"not here"'),
    record("node-20.1", pkgpath="lang/node20"),
    record("node-25.1", pkgpath="lang/node"),
    record("user-1.0", ["{libx,liby}-[0-9]*"]),
    record("both-1.0", ["node>=10:../../lang/node", "node<21:../../lang/node20"]),
)


async def requires(dep: Daemon, package: str) -> list[str]:
    answer = dep.caller.query.Requires(pb.PackageRequest(profile="p", package=package))
    return [requirement.pkgname async for page in answer for requirement in page.requirements]


async def summary(dep: Daemon) -> pb.SummaryResponse:
    answer: pb.SummaryResponse = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
    return answer


async def test_the_rule_of_choice_may_change_at_any_time(dep: Daemon) -> None:
    await dep.load(*CHOICE)
    assert await requires(dep, "user") == ["liby-1.0"]
    assert (await dep.statuses())["user-1.0"] == "blocked"
    assert not (await summary(dep)).differences
    await profile(dep, resolver="prefer-buildable")
    assert await requires(dep, "user") == ["libx-1.0"]
    assert (await dep.statuses())["user-1.0"] == "waiting"
    difference = pb.Difference(
        pkgname="user-1.0", pattern="{libx,liby}-[0-9]*", chosen="libx-1.0", pbulk="liby-1.0"
    )
    assert list((await summary(dep)).differences) == [difference]
    await dep.stop()
    await dep.start()
    for _ in range(100):
        if (await summary(dep)).differences:
            break
        await dep.exchange(wait=0.05, hosts=[])
    assert list((await summary(dep)).differences) == [difference]
    await dep.load(record("liby-1.0"), merge=True)
    assert await requires(dep, "user") == ["liby-1.0"]
    assert not (await summary(dep)).differences
    await dep.load(CHOICE[1], merge=True)
    await profile(dep, resolver="pbulk")
    assert await requires(dep, "user") == ["liby-1.0"]
    check = await dep.caller.admin.CheckDatabase(pb.CheckDatabaseRequest())
    assert check.sound, check.findings


async def test_requirements_that_collide_are_told(dep: Daemon) -> None:
    await dep.load(*CHOICE)
    collision = pb.Collision(pkgname="both-1.0", first="node-20.1", second="node-25.1")
    assert list((await summary(dep)).collisions) == [collision]
    await dep.load(record("node20-20.1", pkgpath="lang/node20"), merge=True)
    assert not (await summary(dep)).collisions
