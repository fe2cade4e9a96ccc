"""Package files, whole and not."""

import bz2
import gzip
import io
import lzma
import tarfile

import pytest

from clusterbuild import package_file
from clusterbuild.core.blame import Flaw
from clusterbuild.package_file import (
    PackageFileError,
    plist_files,
    read_package,
    summary_entry,
    valid_pkgname,
    valid_suffix,
)


def member(name, kind=tarfile.REGTYPE, link="", data=b""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info, data


def flaw_of(path):
    with pytest.raises(PackageFileError) as caught:
        read_package(path)
    return caught.value.flaw, str(caught.value)


def test_what_a_whole_package_says(tmp_path, sample):
    contents = read_package(sample().write(tmp_path / "foo"))
    assert contents.pkgname == "foo-1.0"
    assert contents.members == 8
    assert summary_entry(contents, "foo-1.0.tgz", 1234).decode() == (
        "PKGNAME=foo-1.0\n"
        "COMMENT=A package for tests\n"
        "SIZE_PKG=17\n"
        "BUILD_DATE=2026-11-20 22:32:50 +0000\n"
        "CATEGORIES=devel\n"
        "OPSYS=Linux\n"
        "PKGPATH=devel/foo\n"
        "DEPENDS=bar>=1.0\n"
        "FILE_NAME=foo-1.0.tgz\n"
        "FILE_SIZE=1234\n"
        "DESCRIPTION=First line.\n"
        "DESCRIPTION=\n"
        "DESCRIPTION=Third line.\n"
        "\n"
    )


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressions(tmp_path, sample, pack):
    path = tmp_path / "foo"
    path.write_bytes(pack(sample().tar()))
    assert read_package(path).pkgname == "foo-1.0"


def test_every_cut_is_seen(tmp_path, sample):
    whole = sample(files={"bin/foo": bytes(range(256)) * 40}).write(tmp_path / "foo").read_bytes()
    path = tmp_path / "cut"
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        assert flaw_of(path)[0] is Flaw.DAMAGED, length


def test_a_changed_byte_is_seen(tmp_path, sample):
    whole = bytearray(sample().write(tmp_path / "foo").read_bytes())
    whole[-6] ^= 1  # in the checksum, which stands after everything else
    path = tmp_path / "changed"
    path.write_bytes(whole)
    assert flaw_of(path)[0] is Flaw.DAMAGED


def test_an_archive_that_ends_early_is_seen(tmp_path, sample):
    made = sample()
    made.files = {"bin/foo": b"x", "bin/gone": b"y"}
    cut = [(info, data) for info, data in made.members() if info.name != "bin/gone"]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for info, data in cut:
            archive.addfile(info, io.BytesIO(data))
    path = tmp_path / "foo"
    path.write_bytes(gzip.compress(raw.getvalue()))
    assert flaw_of(path) == (
        Flaw.DAMAGED,
        "its +CONTENTS lists 'bin/gone', which is not in the archive",
    )


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        (member("../../etc/passwd"), "'../../etc/passwd'"),
        (member("/etc/passwd"), "'/etc/passwd'"),
        (member("a/../../b"), "'a/../../b'"),
        (member("dev/null", tarfile.CHRTYPE), "'dev/null' is no file, directory or link"),
        (member("pipe", tarfile.FIFOTYPE), "'pipe' is no file, directory or link"),
        (member("bin/foo"), "'bin/foo' twice"),
    ],
)
def test_what_no_package_may_hold(tmp_path, sample, extra, text):
    flaw, said = flaw_of(sample(extra=(extra,)).write(tmp_path / "foo"))
    assert flaw is Flaw.FORBIDDEN
    assert text in said


def test_nothing_below_a_symbolic_link(tmp_path, sample):
    extra = (member("out", tarfile.SYMTYPE, "/etc"), member("out/passwd", data=b"x"))
    flaw, said = flaw_of(sample(extra=extra).write(tmp_path / "foo"))
    assert (flaw, said) == (Flaw.FORBIDDEN, "its member 'out/passwd' is below a symbolic link")


def test_metadata_is_bounded(tmp_path, sample):
    extra = (member("+INSTALL", data=b" " * (package_file.SMALL_METADATA + 1)),)
    assert flaw_of(sample(extra=extra).write(tmp_path / "foo"))[0] is Flaw.FORBIDDEN


def test_headers_are_bounded(tmp_path, sample, monkeypatch):
    monkeypatch.setattr(package_file, "HEADER_LIMIT", 64 * 1024)
    long = member("share/" + "x" * 200_000, data=b"x")
    flaw, said = flaw_of(sample(extra=(long,)).write(tmp_path / "foo"))
    assert flaw is Flaw.FORBIDDEN
    assert "header" in said


def test_members_and_size_are_bounded(tmp_path, sample, monkeypatch):
    path = sample().write(tmp_path / "foo")
    monkeypatch.setattr(package_file, "MEMBER_LIMIT", 5)
    assert flaw_of(path) == (Flaw.FORBIDDEN, "it has more than 5 members")
    monkeypatch.undo()
    monkeypatch.setattr(package_file, "UNPACKED_LIMIT", 10)
    assert flaw_of(path)[0] is Flaw.FORBIDDEN


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1f\x8b",
        b"hello",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"hello", mtime=0),
        b"BZh9junk",
    ],
)
def test_what_is_no_package_at_all(tmp_path, data):
    path = tmp_path / "foo"
    path.write_bytes(data)
    assert flaw_of(path)[0] in (Flaw.DAMAGED, Flaw.FOREIGN)


def test_a_tar_file_is_not_yet_a_package(tmp_path):
    path = tmp_path / "foo"
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        archive.addfile(*[member("README")[0]])
    path.write_bytes(gzip.compress(raw.getvalue()))
    assert flaw_of(path) == (Flaw.FOREIGN, "it is no package: there is no +CONTENTS in it")


@pytest.mark.parametrize("name", ["../x-1", "a b-1", "-1", "x" * 300 + "-1", "foo"])
def test_names_that_are_none(tmp_path, sample, name):
    assert not valid_pkgname(name)
    assert flaw_of(sample(pkgname=name).write(tmp_path / "foo"))[0] is Flaw.FOREIGN


def test_names_that_are():
    for name in ("foo-1.0nb2", "p5-Foo-Bar-1.2", "gtk2+-2.24", "R-4.1", "osabi-Linux-6.1", "x-0~1"):
        assert valid_pkgname(name)
    assert valid_suffix(".tgz")
    assert not valid_suffix(".tgz/..")
    assert not valid_suffix("")


def test_a_file_that_cannot_be_read_is_not_the_packages_fault(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_package(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        read_package(tmp_path)


class TestContentDigest:
    def digest(self, tmp_path, made):
        return read_package(made.write(tmp_path / "one")).content_digest

    def test_two_builds_of_the_same(self, tmp_path, sample):
        first = self.digest(tmp_path, sample())
        again = sample(build_date="2027-01-01", mtime=1_700_000_000, owner="pbulk", reverse=True)
        assert self.digest(tmp_path, again) == first

    def test_hard_links_in_either_order(self, tmp_path, sample):
        files = {"bin/foo": b"same", "bin/goo": b"same"}
        one = sample(files={"bin/foo": b"same"})
        one.extra = (member("bin/goo", tarfile.LNKTYPE, "bin/foo"),)
        other = sample(files=files)
        link = [(i, d) for i, d in other.members() if i.name == "bin/goo"]
        assert link
        text = {name: data for name, data in one.metadata().items() if name != "+CONTENTS"}
        assert text == {k: v for k, v in other.metadata().items() if k != "+CONTENTS"}
        one.metadata = other.metadata
        one.extra[0][0].mode = 0o755
        assert self.digest(tmp_path, one) == self.digest(tmp_path, other)

    @pytest.mark.parametrize(
        "change",
        [
            {"files": {"bin/foo": b"#!/bin/sh\n", "share/foo": b"other"}},
            {"files": {"bin/foo": b"#!/bin/sh\n", "share/goo": b"data"}},
            {"depends": ("bar>=2.0",)},
            {"pkgname": "foo-1.0nb1"},
            {"extra": (member("lib", tarfile.DIRTYPE),)},
            {"extra": (member("lib", tarfile.SYMTYPE, "lib64"),)},
        ],
        ids=["content", "name of a file", "requirement", "version", "directory", "link"],
    )
    def test_what_makes_a_difference(self, tmp_path, sample, change):
        assert self.digest(tmp_path, sample(**change)) != self.digest(tmp_path, sample())


def test_files_that_a_plist_lists():
    plist = (
        b"@name foo-1.0\n@cwd /usr/pkg\nbin/foo\n@comment MD5:0\n./lib//x.so\n"
        b"@ignore\n+COMMENT\nshare/a b\n\n@exec true\n"
    )
    assert list(plist_files(plist)) == ["bin/foo", "lib/x.so", "share/a b"]
