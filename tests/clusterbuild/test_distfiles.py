"""Distfiles: which ones a package names, and which of them are at hand and right."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

from clusterbuild.distfiles import Shelf, Wanted, parse, wanted
from clusterbuild.engines import Distfile

DISTINFO = """$NetBSD: distinfo,v 1.2 2016/01/01 00:00:00 who Exp $

SHA1 (foo-1.0.tar.gz) = {sha1}
RMD160 (foo-1.0.tar.gz) = 1234
SHA512 (foo-1.0.tar.gz) = {sha512}
Size (foo-1.0.tar.gz) = 4 bytes
SHA1 (sub/bar.zip) = ABCDEF
Size (sub/bar.zip) = 0 bytes
SHA1 (patch-aa) = 4321
Size (../../etc/passwd) = 10 bytes
Size (/etc/passwd) = 10 bytes
Size (a;b) = 10 bytes
Size (huge) = 99999999999999999999 bytes
BLAKE2s (foo-1.0.tar.gz) = {blake2s}
"""


def distinfo(data: bytes) -> str:
    names = ("sha1", "sha512", "blake2s")
    return DISTINFO.format(**{name: hashlib.new(name, data).hexdigest() for name in names})


def test_what_a_distinfo_says() -> None:
    foo, bar = parse(distinfo(b"data"))
    assert (foo.name, foo.size) == ("foo-1.0.tar.gz", 4)
    assert set(foo.sums) == {"SHA1", "RMD160", "SHA512", "BLAKE2s"}
    assert bar == Wanted("sub/bar.zip", 0, {"SHA1": "abcdef"})
    assert parse("rubbish\n\0 = \n") == []


@pytest.mark.parametrize(
    ("makefile", "included", "place"),
    [
        ("", "", "devel/foo/distinfo"),
        ("DISTINFO_FILE= ${.CURDIR}/../../lang/bar/distinfo\n", "", "lang/bar/distinfo"),
        ("DISTINFO_FILE?=\t../bar/distinfo # the same\n", "", "devel/bar/distinfo"),
        (
            '.include "../../lang/bar/Makefile.common"\n',
            "DISTINFO_FILE=\t../../lang/bar/distinfo\n",
            "lang/bar/distinfo",
        ),
        ('.include "../../mk/bsd.pkg.mk"\n', "", "devel/foo/distinfo"),
        ("DISTINFO_FILE= ${OTHER}/distinfo\n", "", "devel/foo/distinfo"),
    ],
)
def test_where_the_distinfo_is(tmp_path: Path, makefile: str, included: str, place: str) -> None:
    for name, text in {
        "devel/foo/Makefile": makefile,
        "lang/bar/Makefile.common": included,
        place: distinfo(b"data"),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert [file.name for file in wanted(tmp_path, "devel/foo")] == [
        "foo-1.0.tar.gz",
        "sub/bar.zip",
    ]


def test_a_package_without_any(tmp_path: Path) -> None:
    assert wanted(tmp_path, "devel/nosuch") == []


def test_only_what_is_right_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    shelf = Shelf()
    foo, _ = parse(distinfo(b"data"))
    bar = Wanted("sub/bar.zip", 3, {"RMD160": "nobody knows"})
    one, two = tmp_path / "one", tmp_path / "two"
    (two / "sub").mkdir(parents=True)
    one.mkdir()
    assert shelf.find([foo, bar], [one, two]) == []
    (one / foo.name).write_bytes(b"shorter"[:3])
    (two / bar.name).write_bytes(b"bar")
    found = shelf.find([foo, bar], [one, two])
    assert found == [Distfile(bar.name, two / bar.name, 3, hashlib.sha256(b"bar").hexdigest())]
    (one / foo.name).write_bytes(b"evil")
    assert shelf.find([foo], [one, two]) == []
    assert "is not what distinfo says" in caplog.text
    (two / foo.name).write_bytes(b"data")
    (found_foo,) = shelf.find([foo], [one, two])
    assert found_foo.path == two / foo.name
    assert found_foo.sha256 == hashlib.sha256(b"data").hexdigest()
