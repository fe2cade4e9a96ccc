"""The exchange of work, over real gRPC and real SQLite."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from dep_daemon import Daemon, built, failed, held, host, record

from clusterdep.api.v1 import clusterdep_pb2 as pb

CHAIN = (
    record("liba-1.0"),
    record("libb-1.0", ["liba>=1"]),
    record("prog-1.0", ["libb-[0-9]*", "liba-[0-9]*"]),
)


async def test_a_chain_is_built_in_order(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    order = []
    results: list[pb.Result] = []
    for _ in range(4):
        answer = await dep.exchange(results=results)
        assert len(answer.grants) <= 1
        order += [grant.pkgname for grant in answer.grants]
        results = [built(grant) for grant in answer.grants]
    assert order == ["liba-1.0", "libb-1.0", "prog-1.0"]
    assert set((await dep.statuses()).values()) == {"built"}
    summary = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
    assert summary.idle


async def test_a_grant_says_everything(dep: Daemon) -> None:
    await dep.load(
        record("liba-1.0"),
        record("py39-prog-1.0", ["liba>=1"], MULTI_VERSION=" PYTHON_VERSION_REQD=39"),
    )
    first = (await dep.exchange()).grants[0]
    second = (await dep.exchange(results=[built(first)])).grants[0]
    assert second.pkgname == "py39-prog-1.0"
    assert second.pkgpath == "cat/py39-prog"
    assert list(second.make_variables) == ["PYTHON_VERSION_REQD=39"]
    assert second.variant == "PYTHON_VERSION_REQD=39"
    assert [(r.pkgname, r.direct, r.size) for r in second.requirements] == [("liba-1.0", True, 100)]
    assert second.record.endswith(b"DEPENDS=liba-1.0\n")
    assert second.record.startswith(b"PKGNAME=py39-prog-1.0\n")
    assert second.host == "h"
    assert second.fence == 1


async def test_a_lost_answer_is_given_again(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    lost = (await dep.exchange()).grants[0]
    again = (await dep.exchange()).grants[0]
    assert again.attempt == lost.attempt
    assert again.fence == lost.fence
    assert not (await dep.exchange(holding=held(again))).grants


async def test_a_grant_is_not_repeated_to_a_host_that_is_away(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    await dep.exchange()
    assert not (await dep.exchange(hosts=[host(state=pb.HOST_STATE_LOST)])).grants
    assert len((await dep.exchange()).grants) == 1


async def test_what_ends_before_any_stage_is_tried_on(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))
    for _ in range(5):
        grant = (await dep.exchange()).grants[0]
        result = failed(grant, pb.BLAME_HOST)
        result.stage = ""
        await dep.exchange(results=[result], hosts=[])
    assert await dep.statuses() == {"liba-1.0": "open"}


async def test_a_result_counts_once(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    grant = (await dep.exchange()).grants[0]
    hosts = [host(free=0)]
    first = await dep.exchange(results=[built(grant)], hosts=hosts)
    second = await dep.exchange(results=[built(grant)], hosts=hosts)
    assert first.verdicts[0].kind == pb.Verdict.KIND_ACCEPTED
    assert second.verdicts[0].kind == pb.Verdict.KIND_DUPLICATE
    history = [a async for a in dep.caller.query.History(pb.HistoryRequest(profile="p"))]
    assert len(history) == 1
    artifacts = [
        a async for a in dep.caller.query.ListArtifacts(pb.ListArtifactsRequest(profile="p"))
    ]
    assert len(artifacts) == 1


async def test_unknown_and_misnamed_results_are_refused(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    grant = (await dep.exchange()).grants[0]
    stranger = built(grant)
    stranger.attempt = "nobody"
    other_fence = built(grant)
    other_fence.fence = 7
    misnamed = built(grant)
    misnamed.artifact.pkgname = "evil-1.0"
    no_digest = built(grant)
    no_digest.artifact.sha256 = "../../etc/passwd"
    no_blame = failed(grant, pb.BLAME_UNSPECIFIED)
    answer = await dep.exchange(
        results=[stranger, other_fence, misnamed, no_digest, no_blame], holding=held(grant)
    )
    assert {v.kind for v in answer.verdicts} == {pb.Verdict.KIND_REFUSED}
    assert (await dep.statuses())["liba-1.0"] == "leased"


async def test_a_failure_blocks_dependents_and_names_the_chain(dep: Daemon) -> None:
    await dep.load(*CHAIN, record("other-1.0"))
    answer = await dep.exchange()
    by_name = {grant.pkgname: grant for grant in answer.grants}
    await dep.exchange(results=[failed(by_name["liba-1.0"]), built(by_name["other-1.0"])])
    assert await dep.statuses() == {
        "liba-1.0": "failed",
        "libb-1.0": "blocked",
        "prog-1.0": "blocked",
        "other-1.0": "built",
    }
    detail = await dep.caller.query.GetPackage(pb.PackageRequest(profile="p", package="libb"))
    assert detail.package.reason == "libb-1.0 needs liba-1.0, which failed"
    why = await dep.caller.query.Why(pb.PackageRequest(profile="p", package="prog"))
    assert {cause.subject for cause in why.causes} == {"libb-1.0", "liba-1.0"}
    # An honest failure is not repeated, until somebody asks.
    assert not (await dep.exchange()).grants
    assert (await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))).idle
    retried = await dep.caller.admin.Retry(pb.RetryRequest(profile="p"))
    assert retried.retried == 1
    assert [grant.pkgname for grant in (await dep.exchange()).grants] == ["liba-1.0"]


async def test_a_changed_record_mends_a_failure(dep: Daemon) -> None:
    await dep.load(*CHAIN)
    grant = (await dep.exchange()).grants[0]
    await dep.exchange(results=[failed(grant)])
    await dep.load(record("liba-1.0nb1"), merge=True)
    assert [g.pkgname for g in (await dep.exchange()).grants] == ["liba-1.0nb1"]


async def test_other_peoples_faults_are_retried_but_not_for_ever(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))
    for _ in range(3):
        grant = (await dep.exchange()).grants[0]
        verdict = (await dep.exchange(results=[failed(grant, pb.BLAME_HOST)], hosts=[])).verdicts[0]
        assert verdict.kind == pb.Verdict.KIND_ACCEPTED
    assert not (await dep.exchange()).grants
    assert await dep.statuses() == {"liba-1.0": "failed"}


async def test_what_an_operator_stopped_is_open_again(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))
    for _ in range(5):
        grant = (await dep.exchange()).grants[0]
        await dep.exchange(results=[failed(grant, pb.BLAME_OPERATOR)], hosts=[])
    assert await dep.statuses() == {"liba-1.0": "open"}


async def test_the_same_content_again_stops_there(dep: Daemon) -> None:
    """Early cut-off: a rebuilt requirement that came out the same makes nothing stale."""
    await dep.load(*CHAIN[:2])
    for _ in range(2):
        grant = (await dep.exchange()).grants[0]
        await dep.exchange(results=[built(grant, content="same")], hosts=[])
    await dep.load(record("liba-1.0", CATEGORIES="other"), merge=True)
    assert await dep.statuses() == {"liba-1.0": "open", "libb-1.0": "waiting"}
    grant = (await dep.exchange()).grants[0]
    answer = await dep.exchange(results=[built(grant, content="same")])
    assert not answer.grants
    assert await dep.statuses() == {"liba-1.0": "built", "libb-1.0": "built"}


async def test_other_content_goes_on_to_dependents(dep: Daemon) -> None:
    await dep.load(*CHAIN[:2])
    for _ in range(2):
        grant = (await dep.exchange()).grants[0]
        await dep.exchange(results=[built(grant)], hosts=[])
    await dep.load(record("liba-1.0", CATEGORIES="other"), merge=True)
    grant = (await dep.exchange()).grants[0]
    answer = await dep.exchange(results=[built(grant, content="new")])
    assert [g.pkgname for g in answer.grants] == ["libb-1.0"]


async def test_a_result_of_outdated_inputs_is_stored_and_stale(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))
    grant = (await dep.exchange()).grants[0]
    await dep.load(record("liba-1.0", CATEGORIES="other"), merge=True)
    answer = await dep.exchange(results=[built(grant)], hosts=[])
    assert answer.verdicts[0].kind == pb.Verdict.KIND_STALE
    assert await dep.statuses() == {"liba-1.0": "open"}


async def test_an_exchange_waits_until_there_is_work(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"), complete=False)
    waiting = asyncio.create_task(dep.exchange(wait=20))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await dep.load(record("libb-1.0"), merge=True)
    grants = (await asyncio.wait_for(waiting, 10)).grants
    assert {grant.pkgname for grant in grants} == {"liba-1.0", "libb-1.0"}


async def test_a_newer_exchange_ends_the_older(dep: Daemon) -> None:
    older = asyncio.create_task(dep.exchange(wait=30, hosts=[]))
    await asyncio.sleep(0.2)
    await dep.exchange(hosts=[])
    with pytest.raises(grpc.RpcError) as error:
        await asyncio.wait_for(older, 5)
    assert error.value.code() is grpc.StatusCode.ABORTED


async def test_nothing_is_granted_before_the_scan_is_complete(dep: Daemon) -> None:
    await dep.load(*CHAIN, complete=False)
    assert not (await dep.exchange()).grants
    summary = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
    assert not summary.idle
    why = await dep.caller.query.Why(pb.PackageRequest(profile="p", package="liba"))
    assert "not complete" in why.text


async def test_only_what_is_selected_and_what_it_requires(dep: Daemon) -> None:
    await dep.load(*CHAIN, record("other-1.0"))
    answer = await dep.caller.admin.Select(
        pb.SelectRequest(profile="p", selection=["cat/libb", "nosuch-[0-9]*"])
    )
    assert (answer.selected, answer.needed, list(answer.missing)) == (1, 2, ["nosuch-[0-9]*"])
    names = []
    results: list[pb.Result] = []
    for _ in range(4):
        reply = await dep.exchange(results=results)
        names += [grant.pkgname for grant in reply.grants]
        results = [built(grant) for grant in reply.grants]
    assert names == ["liba-1.0", "libb-1.0"]
    assert (await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))).idle


async def test_profiles_are_apart(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"), profile="one")
    await dep.load(record("liba-1.0"), profile="two")
    grants = (await dep.exchange()).grants
    assert {(g.profile.name, g.pkgname) for g in grants} == {
        ("one", "liba-1.0"),
        ("two", "liba-1.0"),
    }
    only_one = next(g for g in grants if g.profile.name == "one")
    await dep.exchange(results=[built(only_one)], holding=held(*grants), hosts=[])
    assert await dep.statuses("one") == {"liba-1.0": "built"}
    assert await dep.statuses("two") == {"liba-1.0": "leased"}


async def test_a_host_for_another_profile_gets_nothing(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))
    assert not (await dep.exchange(hosts=[host(profiles=["other"])])).grants
    why = await dep.caller.query.Why(pb.PackageRequest(profile="p", package="liba"))
    assert why.text == "it could be built, but h is not prepared for profile p"
    # No present host could ever run it: there is nothing left to wait for.
    assert (await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))).idle


async def test_the_absence_of_hosts_decides_nothing(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))
    assert not (await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))).idle
    lost = host(state=pb.HOST_STATE_LOST, reason="no answer")
    await dep.exchange(hosts=[lost])
    assert not (await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))).idle
    assert await dep.statuses() == {"liba-1.0": "open"}


async def test_a_vanished_artifact_is_built_again(dep: Daemon) -> None:
    await dep.load(*CHAIN[:2])
    digests = []
    for _ in range(2):
        grant = (await dep.exchange()).grants[0]
        result = built(grant, content="same")
        digests.append(result.artifact.sha256)
        await dep.exchange(results=[result], hosts=[])
    request = pb.DeclareArtifactsRequest(profile="p", missing=[digests[0]])
    assert (await dep.caller.feed.DeclareArtifacts(request)).forgotten == 1
    assert (await dep.caller.feed.DeclareArtifacts(request)).forgotten == 0
    assert await dep.statuses() == {"liba-1.0": "open", "libb-1.0": "waiting"}
    check = await dep.caller.admin.CheckDatabase(pb.CheckDatabaseRequest())
    assert check.sound, check.findings


async def test_only_what_a_requirement_needs_at_run_time_is_at_hand(dep: Daemon) -> None:
    await dep.load(
        record("tool-1.0"),
        record("core-1.0"),
        record("lib-1.0", ["tool-[0-9]*", "core-[0-9]*"]),
        record("prog-1.0", ["lib-[0-9]*"]),
    )
    results: list[pb.Result] = []
    grants: dict[str, pb.Grant] = {}
    for _ in range(4):
        answer = await dep.exchange(results=results, hosts=[host(free=8, slots=8)])
        grants |= {grant.pkgname: grant for grant in answer.grants}
        results = [built(grant) for grant in answer.grants]
        for result in results:
            if result.artifact.pkgname == "lib-1.0":
                result.artifact.summary += b"DEPENDS=core>=1.0\n"
    assert [(r.pkgname, r.direct) for r in grants["prog-1.0"].requirements] == [
        ("lib-1.0", True),
        ("core-1.0", False),
    ]
