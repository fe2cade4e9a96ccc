"""Orders: hold and release, rebuild, rescan, forget, prune."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import grpc
import pytest
import sqlite_utils
from dep_daemon import Daemon, built, failed, held, host, record
from test_dep_cli import ask

from clusterdep.api.v1 import clusterdep_pb2 as pb

CHAIN = (
    record("liba-1.0"),
    record("libb-1.0", ["liba-[0-9]*"]),
    record("prog-1.0", ["libb-[0-9]*"]),
    record("other-1.0"),
)


async def build(dep: Daemon, content: str = "") -> list[str]:
    """Builds until nothing is left; what was built."""
    order: list[str] = []
    results: list[pb.Result] = []
    while True:
        answer = await dep.exchange(results=results)
        if not answer.grants:
            return order
        order += [grant.pkgname for grant in answer.grants]
        results = [built(grant, content and grant.pkgname + content) for grant in answer.grants]


async def kinds(dep: Daemon) -> list[tuple[str, str, str]]:
    request = pb.WatchRequest(after=0)
    return [(e.kind, e.subject, e.cause) async for e in dep.caller.query.Watch(request)]


async def check(dep: Daemon) -> None:
    answer = await dep.caller.admin.CheckDatabase(pb.CheckDatabaseRequest())
    assert answer.sound, answer.findings


async def test_a_held_package_is_not_granted(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    assert await ask(dep, "hold", "p", "liba", "other", "--why", "it breaks hosts") == (0, "", "")
    assert not (await dep.exchange()).grants
    assert (await dep.statuses())["liba-1.0"] == "held"
    why = (await ask(dep, "why", "liba"))[1]
    assert why.startswith("liba-1.0 is held") and "it breaks hosts" in why
    detail = await dep.caller.query.GetPackage(pb.PackageRequest(package="liba"))
    assert detail.held
    # Whoever holds stays held, also after a restart.
    await check(dep)
    await dep.stop()
    await dep.start()
    assert not (await dep.exchange()).grants
    request = pb.HoldRequest(profile="p", packages=["liba"], release=True)
    assert (await dep.caller.admin.Hold(request)).changed == 1
    assert (await dep.caller.admin.Hold(request)).changed == 0
    assert await build(dep) == ["liba-1.0", "libb-1.0", "prog-1.0"]
    assert (await dep.statuses())["other-1.0"] == "held"
    told = [event for event in await kinds(dep) if event[0] in ("held", "released")]
    assert told == [
        ("held", "liba-1.0", "it breaks hosts"),
        ("held", "other-1.0", "it breaks hosts"),
        ("released", "liba-1.0", "by order"),
    ]
    await check(dep)


async def test_what_is_being_built_is_not_touched_by_a_hold(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))
    (grant,) = (await dep.exchange()).grants
    await dep.caller.admin.Hold(pb.HoldRequest(profile="p", packages=["liba"]))
    assert not (await dep.exchange(holding=held(grant))).cancellations
    await dep.exchange(results=[failed(grant, pb.BLAME_HOST)], hosts=[])
    assert not (await dep.exchange()).grants
    await check(dep)


async def test_rebuild_is_that_and_what_it_changes(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await build(dep)
    assert await ask(dep, "rebuild", "p", "liba") == (0, "", "")
    assert (await dep.statuses())["liba-1.0"] == "open"
    await check(dep)
    assert await build(dep) == ["liba-1.0"]  # it came out the same: early cut-off
    await ask(dep, "rebuild", "p", "liba")
    assert await build(dep, "new") == ["liba-1.0", "libb-1.0", "prog-1.0"]
    request = pb.RebuildRequest(profile="p", packages=["liba"], dependents=True)
    assert (await dep.caller.admin.Rebuild(request)).rebuilt == 3
    await dep.stop()
    await dep.start()
    assert await build(dep, "new") == ["liba-1.0", "libb-1.0", "prog-1.0"]
    told = [event for event in await kinds(dep) if event[0] == "rebuild"]
    assert told[0] == ("rebuild", "liba-1.0", "by order")
    assert told[-1] == ("rebuild", "prog-1.0", "by order, with what requires liba")
    await check(dep)


async def test_rebuild_of_a_failed_package_tries_it_again(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))
    (grant,) = (await dep.exchange()).grants
    await dep.exchange(results=[failed(grant)], hosts=[])
    assert (await dep.statuses())["liba-1.0"] == "failed"
    await ask(dep, "rebuild", "p", "liba")
    assert await build(dep) == ["liba-1.0"]


async def test_rebuild_of_very_many_is_one_event(dep: Daemon) -> None:
    count = 60
    await dep.load(record("base-1.0"), *(record(f"p{n}-1.0", ["base>=1"]) for n in range(count)))
    await build(dep)
    request = pb.RebuildRequest(profile="p", packages=["base"], dependents=True)
    assert (await dep.caller.admin.Rebuild(request)).rebuilt == count + 1
    told = [event for event in await kinds(dep) if event[0] == "rebuild"]
    assert told == [("rebuild", "p", "by order, with what requires base")]
    await check(dep)


async def test_rescan_by_pkgpath_category_package_and_all(dep: Daemon) -> None:
    await dep.load(*CHAIN, record("tool-1.0", pkgpath="dev/tool"))

    table = sqlite_utils.Database(dep.state / "clusterdep.db")["pkgpath"]

    def outdated() -> int:
        return table.count_where("outdated_at IS NOT NULL")

    assert outdated() == 0
    for names, count, total in (
        (["cat/liba"], "1", 1),
        (["prog-1.0"], "1", 2),
        (["dev", "tool"], "1", 3),
        (["all"], "5", 5),
    ):
        assert await ask(dep, "rescan", "p", *names) == (0, f"{count} pkgpaths\n", "")
        assert outdated() == total
    code, _, err = await ask(dep, "rescan", "p", "nothing")
    assert code == os.EX_DATAERR and "no package 'nothing'" in err
    await dep.load(record("tool-1.0", pkgpath="dev/tool"), merge=True)
    assert outdated() == 4
    await check(dep)


async def test_names_that_are_nothing_change_nothing(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    before = await kinds(dep)
    for call in (
        dep.caller.admin.Hold(pb.HoldRequest(profile="p", packages=["liba", "nothing"])),
        dep.caller.admin.Rebuild(pb.RebuildRequest(profile="p", packages=["liba", "nothing"])),
        dep.caller.admin.Rebuild(pb.RebuildRequest(profile="q", packages=["liba"])),
        dep.caller.admin.Forget(pb.ForgetRequest(profile="q", whole=True)),
        dep.caller.admin.Prune(pb.PruneRequest(profile="q", artifacts=True)),
    ):
        with pytest.raises(grpc.RpcError) as error:
            await call
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
    for request in (pb.HoldRequest(profile="p"), pb.PruneRequest(attempts_days=-1)):
        name = "Hold" if isinstance(request, pb.HoldRequest) else "Prune"
        with pytest.raises(grpc.RpcError) as error:
            await getattr(dep.caller.admin, name)(request)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await kinds(dep) == before


async def test_a_profile_is_forgotten_whole(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await dep.load(*CHAIN, profile="q")
    (grant, *_) = (await dep.exchange(hosts=[host(profiles=["p"])])).grants
    code, _, err = await ask(dep, "forget", "p", "--whole")
    assert code == os.EX_DATAERR and "is leased (" in err
    await dep.exchange(results=[built(grant)], hosts=[])
    await build(dep)
    assert await ask(dep, "forget", "p", "--whole", "--dry-run") == (0, "4 packages\n", "")
    assert len(await dep.statuses()) == 4
    assert await ask(dep, "forget", "p", "--whole") == (0, "4 packages\n", "")
    profiles = await dep.caller.query.ListProfiles(pb.ListProfilesRequest())
    assert [profile.name for profile in profiles.profiles] == ["q"]
    assert set((await dep.statuses("q")).values()) == {"built"}
    await check(dep)
    # The name is free again, and what comes has nothing to do with what was.
    await dep.load(record("liba-1.0"))
    assert await dep.statuses() == {"liba-1.0": "open"}
    await check(dep)
    await dep.stop()
    await dep.start()
    assert await dep.statuses() == {"liba-1.0": "open"}
    tables = sqlite_utils.Database(dep.state / "clusterdep.db")
    assert tables["package"].count == 5 and tables["attempt"].count == 4


async def test_forgetting_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    dep = Daemon(tmp_path / "state")
    await dep.start()
    await dep.load(*CHAIN)
    await dep.stop()
    database = sqlite_utils.Database(dep.state / "clusterdep.db")
    database.execute("UPDATE profile SET name = '/' || id")
    database.execute("DELETE FROM requirement WHERE package_id = 2")
    database.conn.commit()
    await dep.start()
    assert not (await dep.caller.query.ListProfiles(pb.ListProfilesRequest())).profiles
    for _ in range(100):
        if not database["profile"].count:
            break
        await asyncio.sleep(0.05)
    assert not database["profile"].count and not database["package"].count
    await check(dep)
    await dep.stop()


async def test_what_the_tree_has_no_more_is_forgotten(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await build(dep)
    await dep.load(record("liba-1.0"))
    assert await ask(dep, "forget", "p", "-n") == (0, "3 packages\n", "")
    assert await ask(dep, "forget", "p") == (0, "3 packages\n", "")
    assert await ask(dep, "forget", "p") == (0, "0 packages\n", "")
    history = [a.pkgname async for a in dep.caller.query.History(pb.HistoryRequest(profile="p"))]
    assert history == ["liba-1.0"]
    await dep.load(*CHAIN)
    assert (await dep.statuses())["other-1.0"] == "open"  # it is back, and nobody knows it
    await check(dep)


async def test_prune_keeps_what_matters_and_names_the_files(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"), record("gone-1.0"))
    digests: dict[str, list[str]] = {"liba-1.0": [], "gone-1.0": []}
    for number in range(6):
        answer = await dep.exchange()
        results = [
            built(
                grant,
                log=f"/logs/{grant.pkgname}/{number}",
                stages=[pb.StageTime(stage="build", wall=10.0 + number)],
            )
            for grant in answer.grants
        ]
        for result in results:
            digests[result.artifact.pkgname].append(result.artifact.sha256)
        await dep.exchange(results=results, hosts=[])
        request = pb.RebuildRequest(profile="p", packages=["liba", "gone"])
        if number < 5:
            await dep.caller.admin.Rebuild(request)
    await dep.load(record("liba-1.0"))
    prune = pb.PruneRequest(attempts_days=1e-9, artifacts=True, dry_run=True)
    would = await dep.caller.admin.Prune(prune)
    assert (would.attempts, would.artifacts) == (6, 11)
    assert (await dep.caller.admin.Prune(prune)) == would
    code, out, _ = await ask(dep, "prune", "p", "--days", "0.000000001", "--artifacts", "--json")
    done = json.loads(out)
    assert code == 0 and (done["attempts"], done["artifacts"]) == (6, 11)
    assert sorted(done["logs"]) == sorted(would.logs)
    assert sorted(done["logs"]) == [
        f"/logs/{p}-1.0/{n}" for p in ("gone", "liba") for n in (0, 1, 2)
    ]
    assert set(done["sha256"]) == set(would.sha256)
    assert set(done["sha256"]) == {*digests["gone-1.0"], *digests["liba-1.0"][:-1]}
    assert done["bytes"] == 11 * 100
    assert await dep.statuses() == {"liba-1.0": "built"}
    await check(dep)
    again = await dep.caller.admin.Prune(pb.PruneRequest(attempts_days=1e-9, artifacts=True))
    assert (again.attempts, again.artifacts) == (0, 0)
    events = [
        json.loads(e.detail)
        async for e in dep.caller.query.Watch(pb.WatchRequest(after=0))
        if e.kind == "pruned"
    ]
    assert sum(event.get("attempts", 0) for event in events) == 6
    assert {d for event in events for d in event.get("sha256", ())} == set(done["sha256"])
    code, _, err = await ask(dep, "prune")
    assert code == os.EX_USAGE and "nothing to prune" in err


async def test_what_is_old_is_forgotten_by_itself(tmp_path: Path) -> None:
    dep = Daemon(tmp_path / "state")
    await dep.start()
    await dep.load(record("liba-1.0"))
    for _ in range(5):
        await build(dep)
        await dep.caller.admin.Rebuild(pb.RebuildRequest(profile="p", packages=["liba"]))
    await build(dep)
    await dep.stop()
    await dep.start(attempt_days=1e-9, attempt_count=4, artifact_records="newest")
    tables = sqlite_utils.Database(dep.state / "clusterdep.db")
    for _ in range(100):
        if (tables["attempt"].count, tables["artifact"].count) == (4, 1):
            break
        await asyncio.sleep(0.05)
    assert (tables["attempt"].count, tables["artifact"].count) == (4, 1)
    assert await dep.statuses() == {"liba-1.0": "built"}
    await check(dep)
    await dep.stop()
