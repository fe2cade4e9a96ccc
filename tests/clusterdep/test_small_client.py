"""The contract is enough to build with: the client of docs/ takes a job and does it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dep_daemon import Daemon, record

CLIENT = Path(__file__).parents[2] / "docs/small_client.py"


async def run(dep: Daemon, command: str) -> tuple[int, str]:
    address = f"unix:{dep.state}/clusterdep.sock"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CLIENT), address, command, stdout=-1, stderr=-2
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_it_builds_what_it_is_given(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"), record("prog-1.0", ["liba>=1"]))
    check = 'grep -q "^PKGNAME=$PKGNAME" && printf %s "$PKGNAME $REQUIREMENTS" > "$OUT"'
    assert await run(dep, check) == (0, "liba-1.0: built, accepted\n")
    assert await run(dep, f'{check} && test "$REQUIREMENTS" = liba-1.0') == (
        0,
        "prog-1.0: built, accepted\n",
    )
    assert set((await dep.statuses()).values()) == {"built"}
    assert await run(dep, "true") == (1, "there is nothing to build\n")


async def test_it_says_what_failed(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))
    assert await run(dep, "exit 3") == (1, "liba-1.0: the command exited with 3, accepted\n")
    assert await dep.statuses() == {"liba-1.0": "failed"}
