"""The local engine on real processes, with a fake tree and with a package of the example tree."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onhost_fakes import FakeTree, running

from clusterbuild.core.result import STAGES, Evidence, JobResult, Outcome
from clusterbuild.engines import (
    OVER,
    Engine,
    EngineError,
    JobSpec,
    JobState,
    Kind,
    Life,
    RequiredFile,
)
from clusterbuild.engines.host import HostEngine
from clusterbuild.engines.local import clean_prefix_command, local_engine

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "pkgsrc"


@pytest.fixture
def tree(top: Path) -> FakeTree:
    return FakeTree(top / "tree", top / "prefix")


def spec(tree: FakeTree, attempt: str, name: str, **more: Any) -> JobSpec:
    fields = {"prefix": str(tree.prefix), "kit": tree.kit, "make": "/usr/bin/bmake", **more}
    return JobSpec(attempt, f"{name}-1.0", f"test/{name}", tree.root, **fields)


async def over(engine: Engine, attempt: str, seconds: float = 60) -> JobState:
    """Waits until the job does nothing any more, by watching."""
    async with asyncio.timeout(seconds):
        async for state in engine.watch():
            if state.attempt == attempt and state.life in OVER:
                return state
    raise AssertionError("a watch never ends by itself")


async def built(engine: Engine, job: JobSpec) -> JobResult:
    await engine.start(job)
    await over(engine, job.attempt)
    return await engine.result(job.attempt)


async def fetched(engine: Engine, result: JobResult, where: Path) -> RequiredFile:
    package = result.package
    assert package is not None
    path = where / package.name
    await engine.fetch(result.attempt, package.name, path, package.size, package.sha256)
    name = package.name.removesuffix(".tgz")
    return RequiredFile(name, path, package.sha256, package.size)


async def refused(call: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await call
    assert caught.value.host == "local" and caught.value.why
    return caught.value


async def test_a_job_from_start_to_clean(engine: HostEngine, tree: FakeTree, top: Path) -> None:
    tree.package("liba")
    tree.package("prog", requires=["liba-1.0"], DO_BUILD="echo hello; echo y > file")
    facts = await engine.probe()
    assert facts.opsys == os.uname().sysname and facts.machine_arch == os.uname().machine
    assert facts.cores >= 1 and facts.memory > 0 and facts.disk_free > 0 and facts.clock > 1e9
    assert facts.sandboxes[-1] == "none" and "mount" in facts.sandboxes
    assert facts.tools["tar"].endswith("/tar")

    lib = await fetched(engine, await built(engine, spec(tree, "a-1", "liba")), top)
    result = await built(engine, spec(tree, "a-2", "prog", requirements=(lib,), slots=2))
    assert result.outcome is Outcome.BUILT and result.evidence == frozenset()
    assert tuple(time.stage for time in result.stages) == STAGES
    assert all(time.exit == 0 and time.wall >= 0 for time in result.stages)
    assert result.summary == b"PKGNAME=prog-1.0\nOPSYS=Test\n\n"
    assert result.sandbox == "mount" and 0 < result.started <= result.finished
    await fetched(engine, result, top)
    assert await engine.read_log("a-2", "build") == b"hello\n"
    assert await engine.read_log("a-2", "build", 4, 1) == b"o"
    assert await engine.read_log("a-2", "build", 6) == b""
    # What is here already is linked, not copied.
    assert (top / "base" / "files" / lib.sha256).stat().st_ino == lib.path.stat().st_ino
    states = await engine.look()
    assert [(state.attempt, state.life) for state in states] == [
        ("a-1", Life.ENDED),
        ("a-2", Life.ENDED),
    ]
    await engine.clean("a-1")
    await engine.clean("a-1")
    assert [state.attempt for state in await engine.look()] == ["a-2"]


async def test_a_failure(engine: HostEngine, tree: FakeTree) -> None:
    tree.package("bad", DO_CHECKSUM="echo 'Unable to fetch expected file x.gz'; exit 1")
    result = await built(engine, spec(tree, "bad", "bad"))
    assert (result.outcome, result.stage, result.exit) == (Outcome.FAILED, "checksum", 1)
    assert result.package is None
    assert result.evidence == {Evidence.EXIT, Evidence.FETCH}
    assert result.facts == {"DISTFILE": "x.gz"}
    assert "Unable to fetch" in result.message


async def test_watch_tells_the_life_of_a_job(engine: HostEngine, tree: FakeTree, top: Path) -> None:
    go = top / "base" / "go"
    tree.package("seen", DO_BUILD=f"while ! [ -e {go} ]; do sleep 0.1; done; echo y > file")
    told: list[JobState] = []
    building = asyncio.Event()

    async def watch() -> None:
        async for state in engine.watch():
            told.append(state)
            if state.stage == "build":
                building.set()
            if state.life is Life.ENDED:
                return

    task = asyncio.create_task(watch())
    await engine.start(spec(tree, "seen", "seen"))
    async with asyncio.timeout(30):
        await building.wait()
        go.touch()
        await task
    lives = [state.life for state in told]
    assert lives[-1] is Life.ENDED
    assert set(lives) <= {Life.STARTING, Life.RUNNING, Life.ENDED}
    at_build = next(state for state in told if state.stage == "build")
    assert at_build.pid > 1 and at_build.slot == 1


async def test_a_closed_watch_leaves_no_process(engine: HostEngine, top: Path) -> None:
    await engine.probe()
    scripts = next((top / "base" / "on_host").iterdir())
    watch = engine.watch()
    task = asyncio.ensure_future(anext(watch))
    await eventually(lambda: running(str(scripts / "watch")) != [])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: running(str(scripts / "watch")) == [])


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_the_dispatcher_is_killed_and_the_build_goes_on(
    engine: HostEngine, tree: FakeTree, top: Path
) -> None:
    go = top / "base" / "go"
    tree.package("long", DO_BUILD=f"while ! [ -e {go} ]; do sleep 0.1; done; echo y > file")
    program = f"""
import asyncio, sys
from pathlib import Path
from clusterbuild.engines import JobSpec
from clusterbuild.engines.local import local_engine
async def main():
    engine = local_engine(Path({str(top / "base")!r}))
    await engine.start(JobSpec("long", "long-1.0", "test/long", Path({str(tree.root)!r}),
        prefix={str(tree.prefix)!r}, kit=Path({str(tree.kit)!r}), make="/usr/bin/bmake"))
    print("started", flush=True)
    async for state in engine.watch():
        pass
asyncio.run(main())
"""
    dispatcher = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", program], stdout=subprocess.PIPE
    )
    assert dispatcher.stdout is not None
    assert await asyncio.to_thread(dispatcher.stdout.readline) == b"started\n"
    pid = (await engine.look())[0].pid
    dispatcher.send_signal(signal.SIGKILL)
    dispatcher.wait()
    dispatcher.stdout.close()
    [state] = await engine.look()
    assert (state.life, state.pid) == (Life.RUNNING, pid)
    await engine.start(spec(tree, "long", "long"))
    go.touch()
    await over(engine, "long")
    assert (await engine.result("long")).outcome is Outcome.BUILT


async def test_end(engine: HostEngine, tree: FakeTree) -> None:
    tree.package("hang", DO_BUILD="(setsid sleep 7654341 &); sleep 7654341")
    await engine.start(spec(tree, "hang", "hang"))
    await eventually(lambda: len(running("7654341")) == 2)
    await engine.end("hang")
    assert running("7654341") == []
    result = await engine.result("hang")
    assert (result.outcome, result.evidence) == (Outcome.ENDED, {Evidence.ORDER})
    await engine.end("hang")


async def test_what_cannot_be(engine: HostEngine, tree: FakeTree, top: Path) -> None:
    tree.package("hang", DO_BUILD="sleep 7654342")
    hang = spec(tree, "hang", "hang")
    await engine.start(hang)
    error = await refused(engine.start(spec(tree, "more", "hang")))
    assert error.kind is Kind.BUSY and "no free slot" in str(error)
    for call, kind in (
        (engine.result("hang"), Kind.ABSENT),
        (engine.result("never"), Kind.ABSENT),
        (engine.read_log("never", "build"), Kind.ABSENT),
        (engine.end("never"), Kind.ABSENT),
        (engine.fetch("never", "x.tgz", top / "x", 1, "0" * 64), Kind.ABSENT),
        (engine.fetch("hang", "../job", top / "x", 1, "0" * 64), Kind.REFUSED),
        (engine.end("../x"), Kind.REFUSED),
        (engine.clean(""), Kind.REFUSED),
        (engine.read_log("hang", "../job"), Kind.REFUSED),
        (engine.start(spec(tree, "a b", "hang")), Kind.REFUSED),
        (engine.start(spec(tree, "new", "hang", make="a\nb")), Kind.REFUSED),
        (engine.start(spec(tree, "new", "hang", sandbox="chroot")), Kind.REFUSED),
        (engine.start(spec(tree, "new", "hang", prefix="/a b")), Kind.REFUSED),
    ):
        assert (await refused(call)).kind is kind
    assert not (top / "x").exists()
    await engine.clean("hang")
    assert running("7654342") == []


async def test_a_missing_requirement_file_is_said(
    engine: HostEngine, tree: FakeTree, top: Path
) -> None:
    tree.package("liba")
    absent = RequiredFile("x-1.0", top / "absent.tgz", "1" * 64, 5)
    error = await refused(engine.start(spec(tree, "m", "liba", requirements=(absent,))))
    assert "absent.tgz" in str(error)
    cut = top / "cut.tgz"
    cut.write_bytes(b"1234")
    required = RequiredFile("x-1.0", cut, hashlib.sha256(b"12345").hexdigest(), 5)
    error = await refused(engine.start(spec(tree, "m", "liba", requirements=(required,))))
    assert error.kind is Kind.BROKEN
    assert await engine.look() == []


@pytest.mark.parametrize("trick", ["symlink", "fifo", "directory", "shorter", "longer", "other"])
async def test_fetch_takes_nothing_but_the_file(
    engine: HostEngine, tree: FakeTree, top: Path, trick: str
) -> None:
    tree.package("liba")
    result = await built(engine, spec(tree, "t", "liba"))
    assert result.package is not None
    name, size, digest = result.package.name, result.package.size, result.package.sha256
    path = top / "base" / "jobs" / "t" / "out" / name
    data = path.read_bytes()
    path.unlink()
    if trick == "symlink":
        (top / "real").write_bytes(data)
        path.symlink_to(top / "real")
    elif trick == "fifo":
        os.mkfifo(path)
    elif trick == "directory":
        path.mkdir()
    else:
        path.write_bytes({"shorter": data[:-1], "longer": data + b"x", "other": data[::-1]}[trick])
    async with asyncio.timeout(20):
        error = await refused(engine.fetch("t", name, top / name, size, digest))
    assert error.kind is Kind.BROKEN
    assert not (top / name).exists() and not (top / f"{name}.part").exists()


async def test_a_new_version_of_the_scripts_does_not_touch_the_old(
    engine: HostEngine, tree: FakeTree, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.probe()
    [old] = (top / "base" / "on_host").iterdir()
    import clusterbuild.engines.host as module

    changed = top / "changed"
    changed.mkdir()
    for path in module.ON_HOST.iterdir():
        if path.is_file():
            (changed / path.name).write_bytes(path.read_bytes())
    (changed / "lib.sh").write_bytes((changed / "lib.sh").read_bytes() + b"# newer\n")
    monkeypatch.setattr(module, "ON_HOST", changed)
    newer = local_engine(top / "base")
    await newer.probe()
    versions = sorted((top / "base" / "on_host").iterdir())
    assert len(versions) == 2 and old in versions
    assert (old / "lib.sh").read_bytes() == module.ON_HOST.joinpath("lib.sh").read_bytes()[:-8]
    tree.package("liba")
    assert (await built(newer, spec(tree, "v", "liba"))).outcome is Outcome.BUILT


@pytest.mark.parametrize("kind", ["mount", "none"])
def test_any_command_in_a_clean_prefix(top: Path, tree: FakeTree, kind: str) -> None:
    (top / "base").mkdir()
    argv = clean_prefix_command(
        ["sh", "-c", f"ls {tree.prefix}; exit 7"],
        base=top / "base",
        kind=kind,
        prefix=str(tree.prefix),
        pkgdb="",
        kit=tree.kit,
    )
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "sbin\n", "")
    assert [path.name for path in (top / "base").iterdir()] == ["on_host"]


@pytest.fixture
def example_kit(top: Path) -> Path:
    """The kit of the example tree, for the prefix TOP/pkg."""
    kit, prefix = top / "kit.tgz", top / "pkg"
    bootstrap = [str(EXAMPLE / "bootstrap" / "bootstrap"), "--prefix", str(prefix)]
    words = ["--pkgdbdir", f"{prefix}/pkgdb", "--workdir", str(top / "w")]
    subprocess.run([*bootstrap, *words, "--binary-kit", str(kit)], check=True, capture_output=True)
    return kit


async def test_real_packages_of_the_example_tree(
    engine: HostEngine, top: Path, example_kit: Path
) -> None:
    prefix = top / "pkg"

    def job(pkgname: str, pkgpath: str, *required: RequiredFile) -> JobSpec:
        attempt = pkgpath.replace("/", "_")
        places = {"prefix": str(prefix), "kit": example_kit}
        return JobSpec(attempt, pkgname, pkgpath, EXAMPLE, requirements=required, **places)

    async def make(pkgname: str, pkgpath: str, *required: RequiredFile) -> RequiredFile:
        result = await built(engine, job(pkgname, pkgpath, *required))
        logs = [await engine.read_log(result.attempt, stage) for stage in STAGES]
        assert result.outcome is Outcome.BUILT, (result, logs)
        assert f"PKGNAME={pkgname}\n".encode() in result.summary
        return await fetched(engine, result, top)

    await make("rle-0.7", "archivers/rle", await make("libsum-2.1", "devel/libsum"))
    await make("calc-1.3", "math/calc", await make("digest-20260110", "pkgtools/digest"))
    assert not any(prefix.glob("*"))
