"""Package files, and a daemon with a fake host and a fake clusterdep."""

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from build_fakes import FakeClusterdep, FakeHost, Running

from clusterbuild import keeper
from clusterbuild.core import hosts as host_rules


@dataclass
class Sample:
    """A package to be written as a file; fields may be changed before that."""

    pkgname: str = "foo-1.0"
    files: dict = field(default_factory=lambda: {"bin/foo": b"#!/bin/sh\n", "share/foo": b"data"})
    depends: tuple = ("bar>=1.0",)
    build_date: str = "2026-11-20 22:32:50 +0000"
    mtime: int = 1_000_000_000
    owner: str = "root"
    reverse: bool = False
    extra: tuple = ()  # TarInfo and bytes of further members

    def metadata(self):
        plist = [f"@name {self.pkgname}", "@blddep bar-1.3", "@cwd /usr/pkg"]
        plist += [f"@pkgdep {pattern}" for pattern in self.depends]
        plist += [*self.files, "@ignore", "+COMMENT"]
        return {
            "+CONTENTS": "\n".join(plist) + "\n",
            "+COMMENT": "A package for tests\n",
            "+DESC": "First line.\n\nThird line.\n",
            "+SIZE_PKG": "17\n",
            "+BUILD_VERSION": f"devel/foo/Makefile: $NetBSD {self.mtime}$\n",
            "+BUILD_INFO": (
                f"BUILD_DATE={self.build_date}\nBUILD_HOST={self.owner}-host\n"
                "CATEGORIES=devel\nOPSYS=Linux\nPKGPATH=devel/foo\nSECRET=not shown\n"
            ),
        }

    def members(self):
        made = []
        for name, data in [*self.metadata().items(), *self.files.items()]:
            content = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uname = len(content), self.mtime, self.owner
            info.mode = 0o755 if name.startswith("bin/") else 0o644
            made.append((info, content))
        made += self.extra
        return made[::-1] if self.reverse else made

    def tar(self):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            for info, content in self.members():
                archive.addfile(info, io.BytesIO(content))
        return raw.getvalue()

    def write(self, path: Path):
        path.write_bytes(gzip.compress(self.tar(), mtime=self.mtime))
        return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def sample():
    """Makes a Sample."""
    return Sample


@pytest.fixture
async def world(tmp_path, monkeypatch, caplog):
    """Everything up; whatever a test does, no table is left and no task fails."""
    monkeypatch.setattr(keeper, "STEP_SECONDS", 0.05)
    monkeypatch.setitem(host_rules.PAUSES, host_rules.State.LOST, (0.05, 0.2))
    clusterdep = FakeClusterdep()
    running = Running(tmp_path, FakeHost(), clusterdep)
    async with clusterdep.at(tmp_path / "clusterdep.sock"):
        await running.start()
        yield running
        await running.stop()
    said = [record for record in caplog.records if record.name.startswith("clusterbuild")]
    assert [r.getMessage() for r in said if r.exc_info or "may not happen" in r.msg] == []


@pytest.fixture
def build(world, tmp_path, sample):
    """Lets a job end with a good package of its own name, or of another."""

    def built(job, **changes):
        made = sample(**{"pkgname": job.spec.pkgname, **changes})
        world.host.build(job, tmp_path / "made", made)

    return built
