"""The main job, whole: both daemons, real bmake, the example tree; and killed while it works."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sqlite_utils

ROOT = Path(__file__).parents[2]
TREE = ROOT / "examples/pkgsrc"
SIZE = int(os.environ.get("TEST_SIZE", "1"))
#: A program at the end of a few chains, and what needs two variants of an interpreter.
SOME = "www/sitegen databases/tl-recdb"

pytestmark = pytest.mark.timeout(600)


class Run:
    """`make run`, less make: the command it ends in, on a state directory of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def command(self, *options: str) -> list[str]:
        return [
            sys.executable, "-m", "clusterbuild", "run", "--state", str(self.state),
            "--tree", str(TREE), "--profile", "example", *options,
        ]  # fmt: skip

    def __call__(self, *options: str) -> tuple[int, str]:
        done = subprocess.run(
            self.command(*options), capture_output=True, text=True, timeout=500, check=False
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr + done.stdout
        return done.returncode, done.stdout + done.stderr

    def pid(self, daemon: str) -> int:
        """Of a daemon that runs, else 0."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.state / f"{daemon}.lock").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"serve" in words:
                return pid
        return 0

    def report(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.state / "report/latest.json").read_text())
        return found

    def attempts(self) -> Counter[tuple[str, str]]:
        rows = sqlite_utils.Database(self.state / "clusterdep.db").query(
            "SELECT pkgname, coalesce(outcome, 'leased') AS outcome FROM attempt"
        )
        return Counter((row["pkgname"], row["outcome"]) for row in rows)

    def packages(self) -> dict[str, Path]:
        return {p.stem: p for p in (self.state / "packages/example/All").glob("*.tgz")}

    def processes(self) -> list[int]:
        """Every process that has anything to do with the state directory."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.state).encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "var")


def test_everything_is_built_once_and_can_be_installed(run: Run) -> None:
    code, said = run()
    assert code == 0, said
    built = {name for (name, outcome), _ in run.attempts().items() if outcome == "built"}
    assert len(built) > 25
    assert set(run.packages()) == built
    with gzip.open(run.state / "packages/example/All/pkg_summary.gz", "rt") as summary:
        listed = {line[8:].strip() for line in summary if line.startswith("PKGNAME=")}
    assert listed == built
    assert set(run.attempts().values()) == {1}
    # The light version of libsum conflicts with the full one, on purpose.
    install(run, sorted(built - {"libsum-lite-1.0"}))
    install(run, ["libsum-lite-1.0"])
    assert not run.processes(), "something was left running"
    assert not any((run.state / "prefix").iterdir()), "the prefix itself was written to"

    before = run.attempts()
    code, said = run()
    assert code == 0, said
    assert run.attempts() == before
    assert "nothing was built in this run" in said


def install(run: Run, names: list[str]) -> None:
    """Packages, by the kit's own pkg_add, in a clean prefix like the one they were built in."""
    kit = next((run.state / "kit").glob("*.tgz"))
    script = (
        f"PATH={run.state}/prefix/sbin:$PATH PKG_PATH={run.state}/packages/example/All; "
        f"export PATH PKG_PATH; for name in {' '.join(names)}; do pkg_add $name || exit 1; done; "
        "pkg_info -a"
    )
    done = subprocess.run(
        ["sh", str(ROOT / "clusterbuild/on_host/clean-prefix"), "mount", str(run.state / "room"),
         f"{run.state}/prefix", f"{run.state}/prefix/pkgdb", str(kit), "sh", "-c", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(name in done.stdout for name in names)


def test_trouble_is_told(run: Run) -> None:
    code, said = run("--select", "broken")
    assert code == 1
    for expected in (
        "FAILED in stage build",
        "needs-compile-error-1.0 needs compile-error-1.0, which failed",
        "cycle-a-1.0 needs cycle-b-1.0 needs cycle-c-1.0 needs cycle-a-1.0",
        "no package matches libvec>=9.0",
        "skipped-1.0 is not available for",
        "broken/scan-error",
        "Could not find",
        "marked as broken",
    ):
        assert expected in said, said
    # Everything else went on.
    assert {"good-leaf-1.0", "good-on-top-1.0"} <= set(run.packages())
    attempts = run.attempts()
    assert attempts["compile-error-1.0", "failed"] == 1

    # An honest failure is not repeated, unless asked for.
    assert run("--select", "broken")[0] == 1
    assert run.attempts() == attempts
    assert run("--select", "broken", "--retry-failed")[0] == 1
    assert run.attempts()["compile-error-1.0", "failed"] == 2


@pytest.mark.parametrize(
    "victims", [("clusterdep",), ("clusterbuild",), ("clusterdep", "clusterbuild")]
)
async def test_a_killed_daemon_is_started_again_and_nothing_is_lost(
    run: Run, victims: tuple[str, ...]
) -> None:
    rng = random.Random(f"{os.environ.get('TEST_SEED', '1')} {victims}")
    process = await asyncio.create_subprocess_exec(
        *run.command("--select", SOME), stdout=-1, stderr=-2
    )
    said = asyncio.create_task(process.communicate())
    kills = 0
    while not said.done() and kills < 3 * SIZE:
        await asyncio.wait({said}, timeout=rng.uniform(2.0, 5.0))
        for victim in victims:
            if pid := run.pid(victim):
                os.kill(pid, signal.SIGKILL)
                kills += 1
    text = (await said)[0].decode()
    assert kills, "it ended before anything could be killed"
    assert process.returncode == 0, text
    assert_each_built_once(run)


async def test_everything_killed_and_begun_again(run: Run) -> None:
    """kill -9 of the command and both daemons: builds go on, and the next run takes them up."""
    rng = random.Random(os.environ.get("TEST_SEED", "1"))
    for _ in range(2 * SIZE):
        process = await asyncio.create_subprocess_exec(
            *run.command("--select", SOME), stdout=-1, stderr=-2
        )
        said = asyncio.create_task(process.communicate())
        await asyncio.wait({said}, timeout=rng.uniform(5.0, 9.0))
        if process.returncode is None:
            process.kill()
        for daemon in ("clusterdep", "clusterbuild"):
            if pid := run.pid(daemon):
                os.kill(pid, signal.SIGKILL)
        await said
    code, text = await asyncio.to_thread(run, "--select", SOME)
    assert code == 0, text
    assert_each_built_once(run)


def assert_each_built_once(run: Run) -> None:
    attempts = run.attempts()
    assert set(attempts.values()) == {1}, attempts
    assert {outcome for _, outcome in attempts} == {"built"}, attempts
    assert set(run.packages()) == {name for name, _ in attempts}
    assert "sitegen-0.5" in run.packages()
    partial = [p for p in (run.state / "packages").rglob("*") if p.suffix in (".part", ".tmp")]
    assert not partial
    assert not run.processes()


async def test_an_interrupt_ends_everything(run: Run) -> None:
    process = await asyncio.create_subprocess_exec(
        *run.command("--select", SOME), stdout=-1, stderr=-2
    )
    said = asyncio.create_task(process.communicate())
    await asyncio.wait({said}, timeout=6)
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(said, 60)
    assert process.returncode not in (0, 1)
    assert not run.processes(), "something was left running"
    code, text = await asyncio.to_thread(run, "--select", SOME)
    assert code == 0, text


async def test_two_runs_at_once(run: Run) -> None:
    process = await asyncio.create_subprocess_exec(
        *run.command("--select", "devel/libvec"), stdout=-1, stderr=-2
    )
    said = asyncio.create_task(process.communicate())
    while not (run.state / "run.lock").exists():  # noqa: ASYNC110  nobody tells us
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    code, text = await asyncio.to_thread(run, "--select", "devel/libvec")
    assert code == os.EX_TEMPFAIL, text
    assert str(run.state) in text
    await said
    assert process.returncode == 0


def test_what_can_not_be_is_said(run: Run, tmp_path: Path) -> None:
    def refuse(*options: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "clusterbuild", "run", *options],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stderr + done.stdout

    state = ("--state", str(run.state))
    code, said = refuse(*state, "--tree", str(tmp_path / "nowhere"))
    assert code == os.EX_NOINPUT and str(tmp_path / "nowhere") in said
    code, said = refuse(*state, "--tree", str(tmp_path))
    assert code in (os.EX_DATAERR, os.EX_NOINPUT, os.EX_USAGE) and str(tmp_path) in said
    (tmp_path / "file").write_text("")
    code, said = refuse("--state", str(tmp_path / "file/below"), "--tree", str(TREE))
    assert code == os.EX_CANTCREAT and "file/below" in said
    code, said = refuse(*state, "--tree", str(TREE), "--select", "devel/nosuch")
    assert code == 1 and "devel/nosuch" in said
