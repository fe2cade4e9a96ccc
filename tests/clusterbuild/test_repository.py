"""The repository, with real files."""

import gzip
import os
from dataclasses import replace

import pytest

from clusterbuild import repository
from clusterbuild.core.blame import Flaw
from clusterbuild.package_file import PackageFileError
from clusterbuild.repository import Expected, Repository

FOO = ("devel/foo", "")


@pytest.fixture
def repo(tmp_path):
    made = Repository(tmp_path / "repo")
    made.prepare()
    return made


def fetched(repo, made, attempt="a1"):
    """A package file as an engine has fetched it, and what the host said of it."""
    path = made.write(repo.incoming(attempt))
    size = path.stat().st_size
    return Expected(made.pkgname, repository.sha256_of(path), size)


def kept(repo, made, attempt="a1", package=FOO):
    return repo.keep(attempt, fetched(repo, made, attempt), package)


def published(repo, made, package=FOO):
    known = kept(repo, made, package=package)
    repo.publish(known)
    return known


def names(directory):
    return sorted(entry.name for entry in os.scandir(directory))


def summary(repo):
    return gzip.decompress((repo.all / "pkg_summary.gz").read_bytes()).decode()


def test_keeping_and_publishing(repo, sample):
    known = kept(repo, sample())
    assert names(repo.pool) == [f"{known.sha256}.tgz"]
    assert names(repo.all) == []
    assert len(known.content_digest) == 64
    repo.publish(known)
    assert (repo.all / "foo-1.0.tgz").samefile(repo.path_of(known.sha256, ".tgz"))
    assert names(repo.all) == ["foo-1.0.tgz"]
    assert repo.summary_due
    repo.write_summary()
    assert not repo.summary_due
    assert summary(repo).startswith("PKGNAME=foo-1.0\n")
    assert f"FILE_SIZE={known.size}\n" in summary(repo)


def test_publishing_again_changes_nothing(repo, sample):
    known = published(repo, sample())
    repo.publish(known)
    assert names(repo.all) == ["foo-1.0.tgz"]


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"size": 1}, Flaw.CHECKSUM),
        ({"sha256": "0" * 64}, Flaw.CHECKSUM),
        ({"pkgname": "foo-1.1"}, Flaw.FOREIGN),
        ({"pkgname": "../foo-1.0"}, Flaw.FORBIDDEN),
        ({"suffix": "/../x"}, Flaw.FORBIDDEN),
    ],
)
def test_what_is_not_kept_leaves_nothing(repo, sample, change, flaw):
    expected = replace(fetched(repo, sample()), **change)
    with pytest.raises(PackageFileError) as caught:
        repo.keep("a1", expected, FOO)
    assert caught.value.flaw is flaw
    assert names(repo.pool) == []


def test_a_truncated_file_is_not_kept(repo, sample):
    expected = fetched(repo, sample())
    path = repo.incoming("a1")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(PackageFileError) as caught:
        repo.keep("a1", expected, FOO)
    assert caught.value.flaw is Flaw.CHECKSUM
    cut = Expected("foo-1.0", "", 0)
    path = sample().write(repo.incoming("a2"))
    path.write_bytes(path.read_bytes()[:-30])
    cut = Expected("foo-1.0", repository.sha256_of(path), path.stat().st_size)
    with pytest.raises(PackageFileError) as caught:
        repo.keep("a2", cut, FOO)
    assert caught.value.flaw is Flaw.DAMAGED
    assert names(repo.pool) == []


def test_a_disk_that_cannot_be_written(repo, sample, monkeypatch):
    expected = fetched(repo, sample())

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(repository, "sync_file", full)
    with pytest.raises(OSError, match="No space left"):
        repo.keep("a1", expected, FOO)
    monkeypatch.undo()
    assert repo.keep("a1", expected, FOO).sha256 == expected.sha256


def test_a_new_version_takes_the_place_of_the_old(repo, sample):
    old = published(repo, sample())
    published(repo, sample(pkgname="bar-1.0"), package=("devel/bar", ""))
    new = published(repo, sample(pkgname="foo-1.1"))
    assert names(repo.all) == ["bar-1.0.tgz", "foo-1.1.tgz"]
    assert {old.sha256, new.sha256} <= {name.partition(".")[0] for name in names(repo.pool)}
    repo.write_summary()
    assert summary(repo).count("PKGNAME=") == 2
    assert "foo-1.0" not in summary(repo)


def test_a_rebuilt_package_takes_the_place_of_its_file(repo, sample):
    published(repo, sample())
    new = published(repo, sample(files={"bin/foo": b"new"}))
    assert repository.sha256_of(repo.all / "foo-1.0.tgz") == new.sha256


def test_dropping(repo, sample):
    known = kept(repo, sample())
    repo.drop(known)
    assert names(repo.pool) == []
    same = published(repo, sample())
    repo.drop(same)
    assert names(repo.pool) == [f"{same.sha256}.tgz"]


def test_without_hard_links(repo, sample, monkeypatch):
    def refused(self, target):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refused)
    known = published(repo, sample())
    assert names(repo.all) == ["foo-1.0.tgz"]
    assert repository.sha256_of(repo.all / "foo-1.0.tgz") == known.sha256


def test_publishing_what_is_gone(repo, sample):
    known = kept(repo, sample())
    repo.path_of(known.sha256, ".tgz").unlink()
    with pytest.raises(FileNotFoundError):
        repo.publish(known)
    assert names(repo.all) == []


class TestAfterAKill:
    """Whatever was killed between two steps, reconciling ends where it would have."""

    def again(self, repo):
        other = Repository(repo.root)
        other.prepare()
        return other

    def test_while_fetching(self, repo, sample):
        fetched(repo, sample())
        repo.incoming("a2").with_name(".incoming-a2.part").write_bytes(b"half")
        (repo.all / ".tmp-foo-1.0").write_bytes(b"")
        (repo.all / ".tmp-pkg_summary.gz").write_bytes(b"")
        other = self.again(repo)
        assert (names(other.pool), names(other.all)) == ([], [])

    def test_before_the_verdict(self, repo, sample):
        known = kept(repo, sample())
        other = self.again(repo)
        found = other.reconcile([])
        assert (found.missing, found.linked, found.removed) == ((), 0, 0)
        assert names(other.pool) == [f"{known.sha256}.tgz"], "its attempt may be adopted"

    def test_after_the_verdict(self, repo, sample):
        known = kept(repo, sample())
        other = self.again(repo)
        assert other.reconcile([known]).linked == 1
        other.write_summary()
        assert names(other.all) == ["foo-1.0.tgz", "pkg_summary.gz"]
        assert summary(other).count("PKGNAME=") == 1

    def test_before_the_summary(self, repo, sample):
        known = published(repo, sample())
        other = self.again(repo)
        found = other.reconcile([known])
        assert (found.linked, found.unlinked) == (0, 0)
        assert other.summary_due, "there is none"
        other.write_summary()
        third = self.again(repo)
        third.reconcile([known])
        assert not third.summary_due

    def test_links_nobody_knows(self, repo, sample):
        known = published(repo, sample())
        published(repo, sample(pkgname="bar-1.0"), package=("devel/bar", ""))
        (repo.all / "README").write_text("mine\n")
        other = self.again(repo)
        assert other.reconcile([known]).unlinked == 1
        assert names(other.all) == ["README", "foo-1.0.tgz"]
        assert other.summary_due

    def test_missing_and_damaged(self, repo, sample):
        gone = published(repo, sample())
        short = published(repo, sample(pkgname="bar-1.0"), package=("devel/bar", ""))
        bad = published(repo, sample(pkgname="baz-1.0"), package=("devel/baz", ""))
        repo.path_of(gone.sha256, ".tgz").unlink()
        repo.path_of(short.sha256, ".tgz").write_bytes(b"x")
        with repo.path_of(bad.sha256, ".tgz").open("r+b") as file:
            file.write(b"y")
        other = self.again(repo)
        found = other.reconcile([gone, short, bad])
        assert set(found.missing) == {gone.sha256, short.sha256, bad.sha256}
        assert names(other.all) == []
        assert names(other.pool) == []

    def test_large_repositories_are_compared_by_size_first(self, repo, sample, monkeypatch):
        bad = published(repo, sample())
        with repo.path_of(bad.sha256, ".tgz").open("r+b") as file:
            file.write(b"y")
        monkeypatch.setattr(repository, "CHECK_AT_ONCE", 1)
        other = self.again(repo)
        found = other.reconcile([bad])
        assert (found.missing, found.checked) == ((), False)
        assert other.damaged([bad]) == [bad.sha256]
        other.forget(bad.sha256)
        assert (names(other.pool), names(other.all)) == ([], [])
        assert other.visible() == []

    def test_the_current_one_is_shown_else_the_newest(self, repo, sample):
        old = replace(kept(repo, sample()), built=1.0, current=True)
        new = replace(kept(repo, sample(pkgname="foo-1.1")), built=2.0, current=False)
        other = self.again(repo)
        other.reconcile([new, old])
        assert [known.pkgname for known in other.visible()] == ["foo-1.0"]
        stale = replace(old, current=False)
        other.reconcile([new, stale])
        assert [known.pkgname for known in other.visible()] == ["foo-1.1"]

    def test_pool_files_nobody_knows_go_later(self, repo, sample):
        known = kept(repo, sample())
        now = repo.path_of(known.sha256, ".tgz").stat().st_ctime
        assert repo.reconcile([], now + 86400).removed == 0
        assert repo.reconcile([], now + 8 * 86400).removed == 1
        assert names(repo.pool) == []

    def test_records_that_can_name_no_file(self, repo, sample):
        known = kept(repo, sample())
        hostile = [replace(known, pkgname="../../x-1"), replace(known, sha256="../" * 22)]
        found = repo.reconcile(hostile)
        assert (found.missing, found.linked) == ((), 0)


def test_files_of_another_dispatcher_are_not_missed(repo, sample):
    known = kept(repo, sample())
    other = replace(known, pkgname="bar-1.0", sha256="0" * 64, package=("x/bar", ""), own=False)
    assert repo.reconcile([known, other]).missing == ()
    assert repo.absent([known, other]) == []
    assert repo.absent([replace(other, own=True)]) == ["0" * 64]
    # What is here is shown, whoever built it: a dispatcher may have been given another name.
    assert repo.reconcile([replace(known, own=False)]).unlinked == 0
    assert names(repo.all) == ["foo-1.0.tgz"]


def test_what_became_shorter_is_absent(repo, sample):
    known = published(repo, sample())
    assert repo.absent([known]) == []
    os.truncate(repo.path_of(known.sha256, ".tgz"), known.size - 1)
    assert repo.absent([known]) == [known.sha256]
    repo.forget(known.sha256)
    assert names(repo.all) == []


@pytest.mark.parametrize("link", [False, True])
def test_a_file_from_elsewhere_is_adopted(repo, sample, tmp_path, link):
    source = sample().write(tmp_path / "foo-1.0.tgz")
    known = repo.adopt(source, "foo-1.0", FOO, link)
    assert (known.pkgname, known.suffix, known.package) == ("foo-1.0", ".tgz", FOO)
    assert repo.path_of(known.sha256, ".tgz").samefile(source) == link
    assert names(repo.pool) == [f"{known.sha256}.tgz"]
    assert repo.adopt(source, "foo-1.0", FOO, link).sha256 == known.sha256
    assert repo.unseen([known]) == [known]
    repo.publish(known)
    assert repo.unseen([known, replace(known, sha256="0" * 64)]) == []


def test_what_is_not_whole_is_not_adopted(repo, sample, tmp_path):
    source = sample().write(tmp_path / "foo-1.0.tgz")
    with pytest.raises(PackageFileError, match=r"it is foo-1\.0, and bar-1\.0 was asked for"):
        repo.adopt(source.rename(tmp_path / "bar-1.0.tgz"), "bar-1.0", FOO)
    source = sample().write(tmp_path / "foo-1.0.tgz")
    os.truncate(source, source.stat().st_size - 30)
    with pytest.raises(PackageFileError, match="not a whole archive"):
        repo.adopt(source, "foo-1.0", FOO)
    with pytest.raises(FileNotFoundError):
        repo.adopt(tmp_path / "none-1.0.tgz", "none-1.0", FOO)
    assert names(repo.pool) == []
    assert source.exists()
