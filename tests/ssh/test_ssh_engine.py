"""The engine of hosts over ssh: what it sends, once, and what it brings back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sshd_hosts import ROOT, PortCluster

sys.path.append(str(ROOT / "tests/on_host"))

from onhost_fakes import FakeTree

from clusterbuild.core.result import JobResult, Outcome
from clusterbuild.engines import OVER, EngineError, JobSpec, JobState, Kind, Life
from clusterbuild.engines import ssh as module
from clusterbuild.engines.ssh import SshEngine, SshRunner
from clusterbuild.snapshots import Snapshots
from clusterbuild.trees import Trees
from clusterdep.api.hosts_file import HostEntry

MakeEngine = Callable[..., SshEngine]


@pytest.fixture
def tree(room: Path) -> FakeTree:
    tree = FakeTree(room / "tree", room / "prefix")
    for name in ("foo", "bar"):
        tree.package(name)
    return tree


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What was put on hosts: names of the files here, and how often."""
    counts: Counter[str] = Counter()
    put = SshRunner._put

    async def counted(self: SshRunner, source: Path, target: str, size: int, sha256: str) -> bool:
        counts["".join(source.suffixes)[-4:] or source.name] += 1
        return await put(self, source, target, size, sha256)

    monkeypatch.setattr(SshRunner, "_put", counted)
    return counts


@pytest_asyncio.fixture
async def make_engine(ports: PortCluster, room: Path) -> AsyncIterator[MakeEngine]:
    """Engines of the first host; what it still has at the end is cleaned."""
    async with contextlib.AsyncExitStack() as stack:
        entry = HostEntry("p1", ssh_config=ports.ssh_config, base=ports.base("p1"))

        def make(**more: object) -> SshEngine:
            trees = Trees(room / "state/trees")
            engine = SshEngine(replace(entry, **more), trees, trees.distfiles)  # type: ignore[arg-type]
            stack.push_async_callback(engine.close)
            return engine

        yield make
        last = make()
        for state in await last.look():
            await last.clean(state.attempt)


@pytest_asyncio.fixture
async def engine(make_engine: MakeEngine) -> SshEngine:
    return make_engine()


def spec(tree: FakeTree, room: Path, attempt: str, name: str = "foo", **more: Any) -> JobSpec:
    snapshot = Snapshots(room / "state/trees").take(tree.root)
    fields = {"kit": tree.kit, "make": "/usr/bin/bmake", "slots": 3, **more}
    return JobSpec(
        attempt, f"{name}-1.0", f"test/{name}", snapshot.path, str(tree.prefix),
        snapshot=snapshot.digest, **fields,
    )  # fmt: skip


async def over(engine: SshEngine, attempt: str) -> JobState:
    async with asyncio.timeout(60):
        async for state in engine.watch():
            if state.attempt == attempt and state.life in OVER:
                return state
    raise AssertionError("a watch never ends by itself")


async def built(engine: SshEngine, job: JobSpec) -> JobResult:
    await engine.start(job)
    await over(engine, job.attempt)
    result = await engine.result(job.attempt)
    log = await engine.read_log(job.attempt, result.stage or "sandbox")
    assert result.outcome is Outcome.BUILT, (result, log)
    return result


def on_host(ports: PortCluster, what: str) -> set[str]:
    return {path.name for path in Path(ports.base("p1"), what).iterdir()}


async def test_a_build(engine: SshEngine, tree: FakeTree, room: Path, sent: Counter[str]) -> None:
    facts = await engine.probe()
    assert facts.sandboxes and facts.cores and facts.boot_id
    result = await built(engine, spec(tree, room, "a"))
    package = result.package
    assert package is not None
    target = room / package.name
    await engine.fetch("a", package.name, target, package.size, package.sha256)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == package.sha256
    assert b"built" in await engine.read_log("a", "build") or result.stages
    await engine.clean("a")
    assert await engine.look() == []
    assert sent == {".tgz": 2}, "the kit and the tree"
    sent.clear()
    await built(engine, spec(tree, room, "b", "bar"))
    assert sent == {}, "nothing is sent again"


async def test_what_the_hosts_file_says_counts(make_engine: MakeEngine) -> None:
    facts = await make_engine(cores=77, memory=2**30).probe()
    assert (facts.cores, facts.memory) == (77, 2**30)


async def test_many_starts_send_a_tree_once(
    engine: SshEngine, tree: FakeTree, room: Path, sent: Counter[str]
) -> None:
    jobs = [spec(tree, room, attempt, sandbox="mount") for attempt in "abc"]
    await asyncio.gather(*[engine.start(job) for job in jobs])
    for job in jobs:
        await over(engine, job.attempt)
    assert sent[".tgz"] <= 4, "the tree once; the kit is asked for by each, and sent once"
    assert len(await engine.look()) == 3


async def test_old_trees_go_when_a_new_one_comes(
    engine: SshEngine, tree: FakeTree, room: Path, ports: PortCluster
) -> None:
    first = spec(tree, room, "a")
    await built(engine, first)
    (tree.root / "mk/new").write_text("1")
    second = spec(tree, room, "b")
    await built(engine, second)
    assert on_host(ports, "trees") == {first.snapshot, second.snapshot}, "a reads the first"
    await engine.clean("a")
    await engine.clean("b")
    kept = Snapshots(room / "state/trees")
    tree_of_p = kept.take(tree.root)
    kept.pin("p", tree.root, tree_of_p)
    assert tree_of_p.digest == second.snapshot
    (tree.root / "mk/new").write_text("2")
    third = spec(tree, room, "c")
    await built(engine, third)
    assert on_host(ports, "trees") == {second.snapshot, third.snapshot}


async def test_distfiles_go_with_the_job(
    engine: SshEngine, tree: FakeTree, room: Path, sent: Counter[str], ports: PortCluster
) -> None:
    tree.package("dist", DO_CHECKSUM="cd ${DISTDIR} && cat dist-1.0.tar")
    sha1 = hashlib.sha1(b"distfile").hexdigest()
    (tree.root / "test/dist/distinfo").write_text(
        f"SHA1 (dist-1.0.tar) = {sha1}\nSize (dist-1.0.tar) = 8 bytes\n"
        f"SHA1 (not-here.tar) = {sha1}\nSize (not-here.tar) = 8 bytes\n"
    )
    distdir = room / "distfiles"
    distdir.mkdir()
    (distdir / "dist-1.0.tar").write_text("distfile")
    job = spec(tree, room, "a", "dist", distdir=distdir)
    await built(engine, job)
    assert b"distfile" in await engine.read_log("a", "checksum")
    assert sent[".tar"] == 1
    assert hashlib.sha256(b"distfile").hexdigest() in on_host(ports, "files")
    await built(engine, replace(job, attempt="b"))
    assert sent[".tar"] == 1
    (distdir / "dist-1.0.tar").write_text("DISTFILE")
    await engine.start(replace(job, attempt="c"))
    await over(engine, "c")
    result = await engine.result("c")
    assert (result.outcome, result.stage) == (Outcome.FAILED, "checksum")
    assert sent[".tar"] == 1, "what is not what distinfo says is not sent"


async def test_a_job_without_a_snapshot(engine: SshEngine, tree: FakeTree, room: Path) -> None:
    with pytest.raises(EngineError, match="no snapshot") as caught:
        await engine.start(replace(spec(tree, room, "a"), snapshot=""))
    assert caught.value.kind is Kind.REFUSED


async def test_a_snapshot_that_is_gone(engine: SshEngine, tree: FakeTree, room: Path) -> None:
    with pytest.raises(EngineError) as caught:
        await engine.start(replace(spec(tree, room, "a"), snapshot="0" * 64))
    assert "on this side" in str(caught.value)
    assert await engine.look() == []


async def test_a_job_goes_on_without_its_engine(
    make_engine: MakeEngine, tree: FakeTree, room: Path, ports: PortCluster
) -> None:
    go = Path(ports.base("p1"), "go")  # in a directory that is seen in the sandbox
    tree.package("slow", DO_BUILD=f"until [ -e {go} ]; do sleep 0.1; done; echo >file")
    first = make_engine()
    await first.start(spec(tree, room, "a", "slow"))
    async with asyncio.timeout(60):
        async for state in first.watch():
            if state.stage == "build":
                break
    await first.close()
    second = make_engine()
    (again,) = await second.look()
    assert (again.life, again.stage, again.pid) == (Life.RUNNING, "build", state.pid)
    await asyncio.to_thread(go.touch)
    assert (await over(second, "a")).life is Life.ENDED
    assert (await second.result("a")).outcome is Outcome.BUILT


async def test_everything_through_sudo(
    make_engine: MakeEngine, tree: FakeTree, room: Path, sent: Counter[str]
) -> None:
    sudo = room / "sudo"
    sudo.write_text(
        f'#!/bin/sh\n[ "$1" = -n ] || exit 9\nshift\necho "$1" >>{room}/did\nexec "$@"\n'
    )
    sudo.chmod(0o755)
    engine = make_engine(sudo=(str(sudo), "-n"))
    result = await built(engine, spec(tree, room, "a"))
    assert result.package is not None
    target = room / "package"
    package = result.package
    await engine.fetch("a", package.name, target, package.size, package.sha256)
    assert set((room / "did").read_text().split()) == {"env", "sh", "test"}


async def test_a_fetch_that_broke_goes_on(
    engine: SshEngine,
    tree: FakeTree,
    room: Path,
    ports: PortCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What came before the link broke stays, and the rest is fetched the next time."""
    result = await built(engine, spec(tree, room, "a"))
    package = result.package
    assert package is not None
    target, part = room / "package", room / "package.part"
    there = Path(ports.base("p1"), "jobs/a/out", package.name)
    whole = await asyncio.to_thread(there.read_bytes)
    get = SshRunner.get

    async def broken(self: SshRunner, source: str, target: Path, size: int) -> None:
        await asyncio.to_thread(target.write_bytes, whole[:10])
        raise module.RunnerError(Kind.UNREACHABLE, "the connection broke")

    monkeypatch.setattr(SshRunner, "get", broken)
    with pytest.raises(EngineError) as caught:
        await engine.fetch("a", package.name, target, package.size, package.sha256)
    assert caught.value.kind is Kind.UNREACHABLE
    assert part.read_bytes() == whole[:10]
    monkeypatch.setattr(SshRunner, "get", get)
    await engine.fetch("a", package.name, target, package.size, package.sha256)
    assert target.read_bytes() == whole
    assert not part.exists()
    part.write_bytes(bytes(10))
    with pytest.raises(EngineError) as caught:
        await engine.fetch("a", package.name, target, package.size, package.sha256)
    assert caught.value.kind is Kind.BROKEN
    await engine.fetch("a", package.name, target, package.size, package.sha256)
    assert target.read_bytes() == whole, "a beginning that was wrong is not kept"
