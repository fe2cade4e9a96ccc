"""What the engine makes of a host that answers badly, late, or not at all: at the runner's seam."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

import clusterbuild.engines.host as module
from clusterbuild.engines import EngineError, JobSpec, Kind
from clusterbuild.engines.host import HostEngine
from clusterbuild.engines.local import LocalRunner
from clusterbuild.engines.runner import Completed, Runner, RunnerError

#: What a runner is to answer: an exit status with output and error output, or trouble.
Answer = Completed | RunnerError


class ScriptedRunner:
    """Answers each script as it was told to, and all others with success."""

    def __init__(self, answers: dict[str, Answer], lines: Sequence[bytes | None] = ()) -> None:
        self.answers = answers
        self.said = lines
        self.put_files: list[str] = []

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float, limit: int = 1 << 20
    ) -> Completed:
        script = argv[4].rpartition("/")[2] if argv[0] == "env" else "install"
        answer = self.answers.get(script, Completed(0, b"", b""))
        if isinstance(answer, RunnerError):
            raise answer
        return answer

    async def lines(self, argv: Sequence[str]) -> AsyncGenerator[bytes, None]:
        for line in self.said:
            if line is None:
                await asyncio.sleep(3600)
            else:
                yield line

    async def put(self, source: Path, target: str, sha256: str) -> None:
        self.put_files.append(target)

    async def get(self, source: str, target: Path, size: int) -> None:
        answer = self.answers.get("get")
        if isinstance(answer, RunnerError):
            raise answer

    async def close(self) -> None:
        pass


def engine(lines: Sequence[bytes | None] = (), **answers: Answer) -> HostEngine:
    runner: Runner = ScriptedRunner({k.replace("_", "-"): v for k, v in answers.items()}, lines)
    return HostEngine("h1", runner, "/base")


JOB = JobSpec("a", "foo-1.0", "x/foo", Path("/t"), "/p")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Completed(64, b"", b"supervisor: bad call"), Kind.REFUSED),
        (Completed(65, b"", b"supervisor: the job was refused: line 3"), Kind.REFUSED),
        (Completed(71, b"", b"supervisor: the supervisor did not start"), Kind.BROKEN),
        (Completed(73, b"", b"mkdir: Permission denied"), Kind.REFUSED),
        (Completed(73, b"", b"mkdir: No space left on device\nsupervisor: x"), Kind.FULL),
        (Completed(74, b"", b"cat: write error: No space left on device"), Kind.FULL),
        (Completed(75, b"", b"supervisor: no free slot"), Kind.BUSY),
        (Completed(127, b"", b"sh: not found"), Kind.REFUSED),
        (Completed(137, b"", b""), Kind.BROKEN),
        (RunnerError(Kind.UNREACHABLE, "it took more than 60 seconds"), Kind.UNREACHABLE),
        (Completed(66, b"missing 1234\n", b""), Kind.BROKEN),
    ],
)
async def test_what_a_start_may_come_to(answer: Answer, kind: Kind) -> None:
    with pytest.raises(EngineError) as caught:
        await engine(supervisor=answer).start(JOB)
    assert caught.value.kind is kind
    assert str(caught.value).startswith("host h1: could not start the build of foo-1.0: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "kind", "seen"),
    [
        ([], Kind.UNREACHABLE, 0),
        ([b"end", b"alive", b"job a ended clean 1 1 0 1 -"], Kind.UNREACHABLE, 1),
        ([b"job a ended clean 1 1 0 1 -", b"rubbish"], Kind.BROKEN, 1),
        ([b"end", None], Kind.UNREACHABLE, 0),
    ],
)
async def test_a_watch_ends_with_an_error(
    said: list[bytes | None], kind: Kind, seen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.2)
    states = []
    with pytest.raises(EngineError) as caught:
        async for state in engine(said).watch():
            states.append(state)
    assert caught.value.kind is kind
    assert len(states) == seen


async def test_rubbish_is_broken() -> None:
    rubbish = Completed(0, b"\xff\x1b[31m rubbish", b"")
    host = engine(look=rubbish, probe=rubbish, tell=rubbish)
    for call in (host.look(), host.probe(), host.result("a")):
        with pytest.raises(EngineError) as caught:
            await call
        assert caught.value.kind is Kind.BROKEN
        assert str(caught.value).isprintable()


async def test_an_error_of_the_host_does_no_harm_to_a_terminal() -> None:
    host = engine(end=Completed(71, b"", b"end: \x1b[2Jcleared\x07\n"))
    with pytest.raises(EngineError) as caught:
        await host.end("a")
    assert str(caught.value).isprintable()


async def test_a_host_where_nothing_can_be_installed() -> None:
    host = engine(install=Completed(74, b"", b"tar: No space left on device"))
    with pytest.raises(EngineError) as caught:
        await host.look()
    assert caught.value.kind is Kind.FULL


async def test_a_runner_ends_what_takes_too_long(tmp_path: Path) -> None:
    runner = LocalRunner()
    marker = tmp_path / "marker"
    with pytest.raises(RunnerError) as caught:
        await runner.run(["sh", "-c", f"(sleep 1; touch {marker}) & sleep 60"], timeout=0.2)
    assert caught.value.kind is Kind.UNREACHABLE
    await asyncio.sleep(1.5)
    assert not marker.exists()


async def test_a_runner_takes_no_more_than_it_was_told() -> None:
    runner = LocalRunner()
    with pytest.raises(RunnerError) as caught:
        await runner.run(["yes"], timeout=30, limit=1000)
    assert caught.value.kind is Kind.BROKEN
    done = await runner.run(["sh", "-c", "yes | head -c 200000 >&2; cat; exit 3"], timeout=30)
    assert (done.status, done.out, len(done.err)) == (3, b"", 1 << 16)
    with pytest.raises(RunnerError) as caught:
        async for _ in runner.lines(["sh", "-c", "yes | tr -d '\\n'"]):
            pass
    assert caught.value.kind is Kind.BROKEN
    with pytest.raises(RunnerError) as caught:
        await runner.run(["/nonexistent/program"], timeout=30)
    assert caught.value.kind is Kind.REFUSED
