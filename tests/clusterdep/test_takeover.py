"""Taking over what another system built of the same records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import grpc
import pytest
from dep_daemon import Daemon, built, record
from test_existence import build_all, scan, stale

from clusterdep.api.v1 import clusterdep_pb2 as pb

TREE = (
    record("prog-1.0", ["libb-[0-9]*"]),  # before what it requires
    record("liba-1.0"),
    record("libb-1.0", ["liba>=1"]),
    record("bad-1.0"),
    record("worse-1.0", ["bad>=1"]),
)
BUILT = ("prog-1.0", "liba-1.0", "libb-1.0")
THERE = {name: "built" for name in BUILT}


def artifact(pkgname: str, content: str = "") -> pb.Artifact:
    return pb.Artifact(
        pkgname=pkgname,
        sha256=hashlib.sha256(f"{pkgname} {content}".encode()).hexdigest(),
        size=100,
        content_digest=content or f"content of {pkgname}",
        summary=f"PKGNAME={pkgname}\n".encode(),
        suffix=".tgz",
    )


async def take_over(
    dep: Daemon,
    names: Iterable[str] = (),
    failures: Iterable[str] = (),
    artifacts: Iterable[pb.Artifact] = (),
) -> pb.TakeOverResponse:
    header = pb.TakeOverHeader(profile="p", by="pbulk", dispatcher="d")
    parts = [pb.TakeOverRequest(header=header)]
    parts += [pb.TakeOverRequest(artifact=artifact(name)) for name in names]
    parts += [pb.TakeOverRequest(artifact=one) for one in artifacts]
    for name in failures:
        failure = pb.TakenFailure(pkgname=name, stage="build", message="in pbulk's words", log="/l")
        parts.append(pb.TakeOverRequest(failure=failure))
    parts.append(pb.TakeOverRequest(end=pb.TakeOverEnd()))
    answer: pb.TakeOverResponse = await dep.caller.feed.TakeOver(iter(parts))
    return answer


def refused(answer: pb.TakeOverResponse) -> dict[str, str]:
    return {refusal.where: refusal.why for refusal in answer.refused}


async def test_what_was_built_and_what_failed_is_so_here(dep: Daemon) -> None:
    await dep.load(*TREE)
    answer = await take_over(dep, BUILT, ["bad-1.0"])
    assert (answer.artifacts, answer.failures, answer.known, refused(answer)) == (3, 1, 0, {})
    expected = THERE | {"bad-1.0": "failed", "worse-1.0": "blocked"}
    assert await dep.statuses() == expected
    detail = await dep.caller.query.GetPackage(pb.PackageRequest(profile="p", package="bad"))
    assert detail.package.reason == "in stage build: in pbulk's words"
    history = [a async for a in dep.caller.query.History(pb.HistoryRequest(profile="p"))]
    assert [(a.pkgname, a.dispatcher, a.log) for a in history] == [("bad-1.0", "pbulk", "/l")]
    assert not (await dep.exchange()).grants
    await dep.stop()
    await dep.start()
    assert await dep.statuses() == expected
    again = await take_over(dep, BUILT, ["bad-1.0"])
    assert (again.artifacts, again.failures, again.known) == (0, 0, 4)
    check = await dep.caller.admin.CheckDatabase(pb.CheckDatabaseRequest())
    assert check.sound, check.findings


async def test_a_failure_that_was_retried_is_not_brought_back(dep: Daemon) -> None:
    await dep.load(*TREE)
    await take_over(dep, BUILT, ["bad-1.0"])
    await dep.caller.admin.Retry(pb.RetryRequest(profile="p"))
    assert (await dep.statuses())["bad-1.0"] == "open"
    assert (await take_over(dep, (), ["bad-1.0"])).known == 1
    assert (await dep.statuses())["bad-1.0"] == "open"


async def test_what_does_not_fit_is_refused(dep: Daemon) -> None:
    await dep.load(*TREE)
    await build_all(dep)
    broken = artifact("bad-1.0")
    broken.sha256 = "../../etc"
    answer = await take_over(dep, ["prog-1.0", "none-1.0"], ["gone-1.0", "liba-1.0"], [broken])
    assert refused(answer) == {
        "prog-1.0": "there is an artifact of it that is current",
        "none-1.0": "no record of the profile has this name",
        "gone-1.0": "no record of the profile has this name",
        "liba-1.0": "it is built",
        "bad-1.0": "artifact.sha256 is not 64 hexadecimal digits",
    }
    assert (answer.refused_count, answer.artifacts) == (5, 0)


async def test_what_requires_something_that_is_not_there_is_built_again(dep: Daemon) -> None:
    await dep.load(*TREE[:3])
    await take_over(dep, ["prog-1.0", "libb-1.0"])
    assert await dep.statuses() == {
        "liba-1.0": "open",
        "libb-1.0": "waiting",
        "prog-1.0": "waiting",
    }
    grant = (await dep.exchange()).grants[0]
    await dep.exchange(results=[built(grant)], hosts=[])
    assert await stale(dep, "libb") == ["which liba-1.0 it was built with is not known"]


async def test_changes_make_it_stale_as_anything_else(dep: Daemon) -> None:
    await dep.load(*TREE[:3])
    await take_over(dep, BUILT)
    await dep.load(record("liba-1.1"), merge=True)
    assert await stale(dep, "liba") == ["it is liba-1.1 now, not liba-1.0"]
    assert list(await build_all(dep)) == ["liba-1.1", "libb-1.0", "prog-1.0"]


async def test_the_first_files_that_are_known_are_taken_for_those_it_was_built_from(
    dep: Daemon,
) -> None:
    await dep.load(*TREE[:3])
    await take_over(dep, BUILT)
    await scan(dep, TREE[1], {"Makefile": "1"})
    assert await dep.statuses() == THERE
    await dep.stop()
    await dep.start()
    assert await dep.statuses() == THERE
    await scan(dep, TREE[1], {"Makefile": "2"})
    assert await stale(dep, "liba") == ["file cat/liba/Makefile changed"]
    assert await build_all(dep)
    # Of what was built here that is known from the beginning.
    await scan(dep, record("libb-1.0", ["liba>=1"], RESTRICTED="x"), {"M": "1"}, "cat/libb")
    assert await stale(dep, "libb") != []


async def test_only_what_was_taken_over_is_trusted(dep: Daemon) -> None:
    await dep.load(*TREE[:3])
    await build_all(dep)
    await scan(dep, TREE[1], {"Makefile": "1"})
    assert (await dep.statuses())["liba-1.0"] == "open"


@pytest.mark.parametrize("ended", [True, False])
async def test_a_stream_that_is_not_whole_records_nothing(dep: Daemon, ended: bool) -> None:
    await dep.load(*TREE)
    header = pb.TakeOverRequest(header=pb.TakeOverHeader(profile="p", by="pbulk"))
    one = pb.TakeOverRequest(artifact=artifact("liba-1.0"))
    end = pb.TakeOverRequest(end=pb.TakeOverEnd())
    parts = [header, one, end, one] if ended else [header, one]
    with pytest.raises(grpc.RpcError) as error:
        await dep.caller.feed.TakeOver(iter(parts))
    wanted = grpc.StatusCode.INVALID_ARGUMENT if ended else grpc.StatusCode.ABORTED
    assert error.value.code() is wanted
    with pytest.raises(grpc.RpcError) as error:
        await dep.caller.feed.TakeOver(iter([one, end]))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await dep.statuses())["liba-1.0"] == "open"


async def test_a_large_tree_is_taken_over_in_pieces(dep: Daemon) -> None:
    count = 700
    names = [f"p{number}-1.0" for number in range(count)]
    await dep.load(
        *(
            record(name, [f"p{at + 1}-[0-9]*"] if at + 1 < count else [])
            for at, name in enumerate(names)
        )
    )
    assert (await take_over(dep, names)).artifacts == count
    assert set((await dep.statuses()).values()) == {"built"}
