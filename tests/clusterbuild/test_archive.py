"""Repositories of all profiles: what is damaged, what cannot be written now, what is due."""

import asyncio
import gzip
from dataclasses import replace

import pytest
from build_fakes import until

from clusterbuild import archive as module
from clusterbuild import repository
from clusterbuild.archive import Archive
from clusterbuild.repository import Expected
from clusterdep.api.errors import Fault, Kind


class Clusterdep:
    """What it has recorded, and what it was told is missing."""

    def __init__(self):
        self.known, self.missing, self.away = [], [], False

    async def listed(self, profile):
        if self.away:
            raise Fault(Kind.UNAVAILABLE, "clusterdep is away")
        return list(self.known)

    async def declare(self, profile, sha256s):
        if self.away:
            raise Fault(Kind.UNAVAILABLE, "clusterdep is away")
        self.missing += sha256s


@pytest.fixture
def dep():
    return Clusterdep()


@pytest.fixture
async def archive(tmp_path, dep):
    made = Archive(tmp_path / "packages", dep.listed, dep.declare)
    yield made
    await made.close()


async def keep(archive, sample, pkgname="foo-1.0"):
    repo = await archive.repository("test")
    path = sample(pkgname=pkgname).write(repo.incoming("a1"))
    expected = Expected(pkgname, repository.sha256_of(path), path.stat().st_size)
    return repo.keep("a1", expected, (f"devel/{pkgname[:3]}", ""))


def summary(archive):
    path = archive.root / "test/All/pkg_summary.gz"
    return gzip.decompress(path.read_bytes()).decode() if path.exists() else ""


async def test_a_repository_is_opened_once(archive, dep):
    both = await asyncio.gather(archive.repository("test"), archive.repository("test"))
    assert both[0] is both[1]
    assert archive.opened() == {"test": both[0]}


async def test_clusterdep_away_while_it_is_opened(archive, dep):
    dep.away = True
    with pytest.raises(Fault, match="clusterdep is away"):
        await archive.repository("test")
    assert archive.opened() == {}
    dep.away = False
    assert await archive.repository("test")


async def test_the_summary_waits_until_nothing_changes(archive, sample, monkeypatch):
    await archive.repository("test")
    await archive.settle(everything=True)
    await archive.publish("test", await keep(archive, sample))
    await archive.settle()
    assert "foo" not in summary(archive)
    monkeypatch.setattr(module, "SUMMARY_QUIET", 0.0)
    await archive.settle()
    assert "PKGNAME=foo-1.0\n" in summary(archive)


async def test_the_summary_does_not_wait_for_ever(archive, sample, monkeypatch):
    monkeypatch.setattr(module, "SUMMARY_LATEST", 0.0)
    await archive.publish("test", await keep(archive, sample))
    await archive.settle()
    assert "PKGNAME=foo-1.0\n" in summary(archive)


async def test_closing_writes_what_is_due(archive, sample):
    await archive.publish("test", await keep(archive, sample))
    await archive.close()
    assert "PKGNAME=foo-1.0\n" in summary(archive)


async def test_what_cannot_be_published_now_is_published_later(archive, sample, monkeypatch):
    known = await keep(archive, sample)

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repository, "sync_directory", full)
    await archive.publish("test", known)
    monkeypatch.undo()
    await archive.settle(everything=True)
    assert "PKGNAME=foo-1.0\n" in summary(archive)
    assert (archive.root / "test/All/foo-1.0.tgz").exists()


async def test_publishing_what_has_vanished_is_told(archive, sample, dep):
    known = await keep(archive, sample)
    (await archive.repository("test")).path_of(known.sha256, ".tgz").unlink()
    await archive.publish("test", known)
    assert dep.missing == [known.sha256]
    dep.away = True
    await archive.publish("test", known)  # nobody can be told, and nothing breaks


async def test_large_repositories_are_read_in_the_background(
    tmp_path, archive, sample, dep, monkeypatch
):
    good, bad = await keep(archive, sample), await keep(archive, sample, "bar-1.0")
    dep.known = [good, replace(bad, package=("devel/bar", ""))]
    path = archive.root / f"test/pool/{bad.sha256}.tgz"
    with path.open("r+b") as file:
        file.write(b"x")
    monkeypatch.setattr(repository, "CHECK_AT_ONCE", 1)
    other = Archive(archive.root, dep.listed, dep.declare)
    repo = await other.repository("test")
    await until(lambda: dep.missing == [bad.sha256])
    assert [known.pkgname for known in repo.visible()] == ["foo-1.0"]
    await other.close()
    assert "bar-1.0" not in summary(other)


async def test_a_repository_is_checked_while_everything_goes_on(archive, sample, dep, monkeypatch):
    good, gone, cut, other = [
        await keep(archive, sample, name) for name in ("foo-1.0", "bar-1.0", "qux-1.0", "zip-1.0")
    ]
    for known in (good, gone, cut):
        await archive.publish("test", known)
    dep.known = [good, gone, cut, replace(other, sha256="0" * 64, own=False)]
    repo = await archive.repository("test")
    repo.path_of(gone.sha256, ".tgz").unlink()
    with repo.path_of(cut.sha256, ".tgz").open("ab") as file:
        file.write(b"x")
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    archive._checks["test"] = (0.0, asyncio.get_running_loop().time() + 1000)
    await archive.settle()
    await until(lambda: sorted(dep.missing) == sorted([gone.sha256, cut.sha256]))
    assert [known.pkgname for known in repo.visible()] == ["foo-1.0"]


async def test_all_files_are_read_now_and_then(archive, sample, dep):
    known = await keep(archive, sample)
    repo = await archive.repository("test")
    dep.known = [known]
    assert await archive.check("test", read=True) == 0
    assert [shown.pkgname for shown in repo.visible()] == ["foo-1.0"]  # recorded, not yet seen
    with repo.path_of(known.sha256, ".tgz").open("r+b") as file:
        file.write(b"x")
    assert await archive.check("test") == 0
    assert await archive.check("test", read=True) == 1
    assert dep.missing == [known.sha256]
    assert repo.visible() == []
    dep.away = True
    assert await archive.check("test", read=True) == 0


async def test_trouble(archive, tmp_path, monkeypatch):
    assert archive.trouble() == ""
    assert list(archive.root.iterdir()) == []
    monkeypatch.setattr(module, "LEAST_FREE", 2**80)
    assert "is full" in archive.trouble()
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    blocked = Archive(tmp_path / "file" / "packages", None, None)
    assert "cannot be written: Not a directory" in blocked.trouble()
