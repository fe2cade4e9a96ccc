"""A set-up of pbulk, taken over through the command line by both real daemons."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clusterdep.api import client


def record(pkgname: str, *depends: str) -> str:
    base = pkgname.rpartition("-")[0]
    tokens = " ".join(f"{pattern}:../../cat/{pattern.partition('-')[0]}" for pattern in depends)
    return (
        f"PKGNAME={pkgname}\nPKG_LOCATION=cat/{base}\nALL_DEPENDS={tokens}\nPKG_SKIP_REASON=\n"
        "PKG_FAIL_REASON=\nCATEGORIES=cat\nUSE_DESTDIR=user-destdir\nSCAN_DEPENDS=Makefile\n"
    )


def package(path: Path, pkgname: str, damage: int = 0) -> None:
    """A package file as pkg_create makes it; `damage` bytes of its end are missing."""
    members = {
        "+CONTENTS": f"@name {pkgname}\n@cwd /usr/pkg\nbin/{pkgname}\n",
        "+COMMENT": "A package\n",
        "+DESC": "A package.\n",
        "+BUILD_INFO": "BUILD_DATE=2026-01-01\nOPSYS=NetBSD\n",
        f"bin/{pkgname}": f"#!/bin/sh\necho {pkgname}\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    os.truncate(path, path.stat().st_size - damage)


@pytest.fixture
def pbulk(tmp_path: Path) -> Path:
    """What pbulk left behind: a scan, two lists, logs of a failure, packages."""
    meta, packages = tmp_path / "bulklog/meta", tmp_path / "packages/All"
    meta.mkdir(parents=True)
    packages.mkdir(parents=True)
    (meta / "pscan").write_text(
        record("liba-1.0") + record("prog-1.0", "liba-[0-9]*") + record("cut-1.0")
        + record("bad-1.0", "liba-[0-9]*") + record("worse-1.0", "bad-[0-9]*")
        + record("lost-1.0") + record("todo-1.0")
    )  # fmt: skip
    (meta / "success").write_text("liba-1.0\nprog-1.0\ncut-1.0\nlost-1.0\nold-0.9\nbad-1.0\n")
    (meta / "error").write_text("bad-1.0\nolder-0.8\n")
    for name in ("liba-1.0", "prog-1.0", "old-0.9", "bad-1.0"):
        package(packages / f"{name}.tgz", name)
    package(packages / "cut-1.0.tgz", "cut-1.0", damage=20)
    logs = tmp_path / "bulklog/bad-1.0"
    logs.mkdir()
    (logs / "configure.log").write_text("all is well\n")
    (logs / "build.log").write_text("cc -c bad.c\n*** Error code 1\n\n")
    return tmp_path


async def call(program: str, *words: str, state: Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", program, *words, "--state", str(state)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert b"Traceback" not in err
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[Path]:
    """Both daemons, serving on a state directory; nothing is built."""
    there = tmp_path / "state"
    running = []
    address = client.default_address("clusterdep", there)
    for words in (("clusterdep",), ("clusterbuild", "--clusterdep", address)):
        running.append(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *words, "serve", "--state", str(there)),
                stderr=asyncio.subprocess.DEVNULL,
            )
        )
        async with asyncio.timeout(30):
            while (await call(words[0], "status", state=there))[0]:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert (await call("clusterbuild", "stop", state=there))[0] == os.EX_OK  # takes no jobs
    yield there
    for process in reversed(running):
        process.terminate()
        await process.wait()


async def statuses(state: Path) -> dict[str, str]:
    words = ("status", "--profile", "p", "--packages", "--json")
    code, out, err = await call("clusterdep", *words, state=state)
    assert code == os.EX_OK, err
    found = [json.loads(line) for line in out.splitlines()]
    return {one["pkgname"]: one["status"] for one in found}


EXPECTED = {
    "liba-1.0": "built",
    "prog-1.0": "built",
    "cut-1.0": "open",
    "bad-1.0": "failed",
    "worse-1.0": "blocked",
    "lost-1.0": "open",
    "todo-1.0": "open",
}


async def test_a_set_up_of_pbulk_is_taken_over(pbulk: Path, state: Path) -> None:
    words = ("import", "pbulk", "p", "--meta", str(pbulk / "bulklog/meta"))
    words += ("--packages", str(pbulk / "packages"))
    code, out, err = await call("clusterdep", *words, state=state)
    assert code == os.EX_OK, err
    assert out == (
        "profile p: 7 records (0 refused), 2 packages built, 1 failed, 0 known before; "
        "left out: 3 refused, 1 without a package file\n"
    )
    assert "refused cut-1.0.tgz: it is not a whole archive" in err
    assert "refused old-0.9.tgz: no record of the profile has this name" in err
    assert "lost-1.0: there is no file of it" in err
    assert "refused failure of older-0.8: no record of the profile has this name" in err
    assert await statuses(state) == EXPECTED
    _, out, _ = await call("clusterdep", "show", "bad", state=state)
    assert "failed: in stage build: *** Error code 1" in out
    shown = {path.name for path in (state / "packages/p/All").glob("*.tgz")}
    assert shown == {"liba-1.0.tgz", "prog-1.0.tgz"}

    code, out, _ = await call("clusterdep", *words, "--json", state=state)
    told = json.loads(out)
    assert (code, told["built"], told["failed"], told["known"]) == (os.EX_OK, 0, 0, 3)
    assert await statuses(state) == EXPECTED


async def test_what_is_not_there_is_said(pbulk: Path, state: Path) -> None:
    async def fails(*words: str) -> tuple[int, str]:
        code, _, err = await call("clusterdep", "import", "pbulk", "p", *words, state=state)
        return code, err

    assert await fails("--meta", str(pbulk)) == (
        os.EX_NOINPUT,
        f"clusterdep: {pbulk} has neither pscan nor presolve in it\n"
        "  name the meta directory below pbulk's bulklog, or a scan with --pscan FILE\n",
    )
    pscan = str(pbulk / "bulklog/meta/pscan")
    code, err = await fails("--pscan", pscan, "--error", "/nonexistent")
    assert (code, err) == (os.EX_NOINPUT, "clusterdep: /nonexistent: there is no such file\n")
    code, err = await fails("--pscan", pscan, "--packages", str(pbulk / "none"))
    assert "is no directory on the dispatcher's machine" in err
    assert "packages and failures were not taken over" in err
    assert code != os.EX_OK
    code, out, _ = await call("clusterdep", "import", "pbulk", "p", "--pscan", pscan, state=state)
    assert (code, out.split(":")[0]) == (os.EX_OK, "profile p")
