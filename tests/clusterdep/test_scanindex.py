"""Scan records: cutting, reading, refusing, writing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterdep.core import scanindex
from clusterdep.core.scanindex import Record, Refusal, Splitter, Text

WHOLE = b"""\
PKGNAME=py312-foo-1.2nb3
PKG_LOCATION=devel/py-foo
ALL_DEPENDS=  digest>=1:../../pkgtools/digest   bar-[0-9]*:../../devel/bar
PKG_SKIP_REASON=
PKG_FAIL_REASON="foo has an unacceptable license condition: " "foo-license"
NO_BIN_ON_FTP=not ours
RESTRICTED=text of \xe9
CATEGORIES=devel python
MAINTAINER=pkgsrc-users@NetBSD.org
USE_DESTDIR=user-destdir
BOOTSTRAP_PKG=yes
USERGROUP_PHASE=pre-install
SCAN_DEPENDS=Makefile ../../mk/bsd.pkg.mk /etc/mk.conf
MAKE_JOBS_SAFE=no
PBULK_WEIGHT=250
MULTI_VERSION= RUBY_VERSION_REQD=34 PYTHON_VERSION_REQD=312
"""


def texts(*pieces: bytes) -> list[Text | Refusal]:
    return list(scanindex.split(pieces))


def record(raw: bytes, pkgpath: bytes | None = None) -> Record | Refusal:
    (text,) = texts(raw)
    return text if isinstance(text, Refusal) else scanindex.read(text, pkgpath)


def small(pkgname: str = "foo-1.0", more: str = "", location: str = "devel/foo") -> bytes:
    place = f"PKG_LOCATION={location}\n" if location else ""
    return f"PKGNAME={pkgname}\n{place}ALL_DEPENDS=\n{more}".encode()


def test_a_record_is_read_whole() -> None:
    assert record(WHOLE) == Record(
        pkgname=b"py312-foo-1.2nb3",
        pkgpath=b"devel/py-foo",
        depends=(b"digest>=1:../../pkgtools/digest", b"bar-[0-9]*:../../devel/bar"),
        skip_reason=b"",
        fail_reason=b'"foo has an unacceptable license condition: " "foo-license"',
        make_variables=(b"RUBY_VERSION_REQD=34", b"PYTHON_VERSION_REQD=312"),
        variant=(b"PYTHON_VERSION_REQD=312", b"RUBY_VERSION_REQD=34"),
        bootstrap=True,
        usergroup_phase=b"pre-install",
        use_destdir=b"user-destdir",
        no_bin_on_ftp=b"not ours",
        restricted=b"text of \xe9",
        categories=(b"devel", b"python"),
        maintainer=b"pkgsrc-users@NetBSD.org",
        weight=250,
        make_jobs_safe=False,
        resolved=None,
        raw=WHOLE,
    )


def test_what_is_left_out_has_its_default() -> None:
    found = record(small())
    assert isinstance(found, Record)
    assert (found.weight, found.make_jobs_safe, found.bootstrap) == (100, True, False)
    assert (found.depends, found.variant, found.categories) == ((), (), ())
    assert found.scan_depends == b""
    assert found.brief == found.raw


@pytest.mark.parametrize("weight", ["", "high", "1e9", "99999999999999999999"])
def test_a_weight_that_is_none_counts_as_the_default(weight: str) -> None:
    found = record(small(more=f"PBULK_WEIGHT={weight}\n"))
    assert isinstance(found, Record)
    assert found.weight == scanindex.DEFAULT_WEIGHT


def test_scan_depends_is_told_and_left_out_of_the_brief_text() -> None:
    found = record(WHOLE)
    assert isinstance(found, Record)
    assert found.scan_depends == b"Makefile ../../mk/bsd.pkg.mk /etc/mk.conf"
    assert found.brief == b"".join(
        line for line in WHOLE.splitlines(keepends=True) if not line.startswith(b"SCAN_DEP")
    )


def test_records_follow_each_other_with_nothing_between() -> None:
    first, second = small("foo-1.0"), small("bar-2.0", more="\nstray text\n\n")
    assert texts(first + second + first) == [
        Text(1, 0, first),
        Text(2, len(first), second),
        Text(3, len(first) + len(second), first),
    ]


def test_a_mark_counts_only_at_the_start_of_a_line() -> None:
    raw = small(more="PKG_FAIL_REASON=see PKGNAME=foo\n PKGNAME=bar-1.0\n")
    assert texts(raw) == [Text(1, 0, raw)]


def test_unknown_and_blank_lines_are_kept_and_mean_nothing() -> None:
    raw = small(more='\nNEW_KEY=1\nno equals\nPKG_SKIP_REASON="no"\nDEPENDS\n')
    found = record(raw)
    assert isinstance(found, Record)
    assert (found.skip_reason, found.resolved, found.raw) == (b'"no"', None, raw)


def test_of_a_key_that_stands_twice_the_first_counts() -> None:
    found = record(small(more="PKG_LOCATION=other/place\nMAINTAINER=a\nMAINTAINER=b\n"))
    assert isinstance(found, Record)
    assert (found.pkgpath, found.maintainer) == (b"devel/foo", b"a")


def test_text_before_the_first_record_means_nothing() -> None:
    raw = small()
    assert texts(b"make: a warning\n\n" + raw) == [Text(1, 17, raw)]


def test_text_without_any_record_is_refused() -> None:
    for raw in (b"make: don't know how to make pbulk-index. Stop\n", b"x" * (3 << 20)):
        (refusal,) = texts(raw)
        assert isinstance(refusal, Refusal)
        assert refusal.where == "line 1"
        assert "PKGNAME=" in str(refusal)
    assert texts() == texts(b"\n \n") == []


def test_the_location_of_a_scan_is_put_into_the_second_line() -> None:
    raw = small(location="")
    found = record(raw, b"devel/foo")
    assert isinstance(found, Record)
    assert found.raw.splitlines()[:2] == [b"PKGNAME=foo-1.0", b"PKG_LOCATION=devel/foo"]
    assert record(found.raw, b"devel/foo") == found


WRONG = [
    (small(""), "PKGNAME is empty"),
    (small("a-1"), "less than 4 bytes"),
    (small("foobar"), "not of the form name-version"),
    (small("foobar-"), "not of the form name-version"),
    (small("-1.0"), "not of the form name-version"),
    (small("-foo-1.0"), "begins with -"),
    (small(".foo-1.0"), "begins with ."),
    (small("foo bar-1.0"), "printable ASCII"),
    (small("foo\t-1.0"), "printable ASCII"),
    (small("../foo-1.0"), "printable ASCII, or a /"),
    (small("foo-1.0\r"), "printable ASCII"),
    (small("f\xf6\xf6-1.0"), "printable ASCII"),
    (small("f" * 300 + "-1.0"), "has 304 bytes"),
    (small(location=""), "no PKG_LOCATION"),
    (small(location="devel"), "not of the form category/package"),
    (small(location="devel/foo/bar"), "not of the form category/package"),
    (small(location="/devel"), "not of the form category/package"),
    (small(location="../foo"), "not of the form category/package"),
    (small(location="devel/.."), "not of the form category/package"),
    (small(location="devel/."), "not of the form category/package"),
    (small(location="devel/f oo"), "not of the form category/package"),
    (small(location="devel/-rf"), "not of the form category/package"),
    (small(location="d/" + "x" * 300), "not of the form category/package"),
    (small(location=" "), "not of the form category/package"),
    (b"PKGNAME=foo-1.0\nPKG_LOCATION=devel/foo\n", "no ALL_DEPENDS"),
    (small(more="MULTI_VERSION= clean\n"), "MULTI_VERSION has clean"),
    (small(more="MULTI_VERSION= -f/etc/x\n"), "MULTI_VERSION has -f/etc/x"),
    (small(more="MULTI_VERSION= A!=id\n"), "MULTI_VERSION has A!=id"),
    (small(more="X=a\0b\n"), "NUL"),
    (small()[:-1], "cut off"),
    (small(more="X=" + "x" * scanindex.LONGEST_RECORD + "\n"), "longer than 1048576 bytes"),
]


@pytest.mark.parametrize(("raw", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_is_wrong_is_refused_alone(raw: bytes, why: str) -> None:
    good = small("good-1.0")
    pieces = [good, raw + (b"" if "cut off" in why else good)]
    found = [one if isinstance(one, Refusal) else scanindex.read(one) for one in texts(*pieces)]
    refusals = [one for one in found if isinstance(one, Refusal)]
    assert len(refusals) == 1
    assert why in refusals[0].why
    assert refusals[0].where.startswith("record 2")
    assert [one.raw for one in found if isinstance(one, Record)] == [good] * (len(found) - 1)


def test_a_record_from_another_directory_is_refused() -> None:
    refusal = record(small(), b"devel/bar")
    assert isinstance(refusal, Refusal)
    assert refusal.where == "record 1 (devel/bar)"
    assert "PKG_LOCATION is devel/foo" in refusal.why


@pytest.mark.parametrize(
    "path", [b"devel/foo", b"x11/XaoS", b"lang/python3.12", b"a_b/c++", b"a/.b"]
)
def test_pkgpaths(path: bytes) -> None:
    assert scanindex.is_pkgpath(path)
    assert not scanindex.is_pkgpath(path + b"\n")


def test_a_record_that_never_ends_is_not_kept() -> None:
    splitter = Splitter()
    assert splitter.feed(small()) == []
    found = [one for _ in range(5000) for one in splitter.feed(b"x" * 1000)]
    assert [type(one) for one in found] == [Refusal]
    assert len(splitter._rest) < 2 * scanindex.LONGEST_RECORD
    after = b"\n" + small("bar-1.0")
    assert splitter.feed(after) == []
    assert splitter.finish() == [Text(2, len(small()) + 5_000_001, after[1:])]


def test_depends_are_written_after_the_last_line() -> None:
    raw = small(more="X=1\n\n")
    assert scanindex.with_depends(raw, [b"a-1", b"b-2"]) == raw + b"DEPENDS=a-1 b-2\n"
    assert scanindex.with_depends(raw, []) == raw
    again = scanindex.with_depends(raw + b"DEPENDS=c-3\nY=1\n", [b"a-1"])
    assert again == raw + b"Y=1\nDEPENDS=a-1\n"
    found = record(raw + b"DEPENDS=a-1 b-2\n")
    assert isinstance(found, Record)
    assert found.resolved == (b"a-1", b"b-2")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("PKG_FAIL_REASON=\n", 'PKG_FAIL_REASON="r 1" "r "2""\n'),
        ('PKG_FAIL_REASON="own"\n', 'PKG_FAIL_REASON="own" "r 1" "r "2""\n'),
        ('PKG_FAIL_REASON="r 1"\nX=\n', 'PKG_FAIL_REASON="r 1" "r "2""\nX=\n'),
        ("", 'PKG_FAIL_REASON="r 1" "r "2""\n'),
    ],
)
def test_fail_reasons_are_added_to_the_record_s_own(before: str, after: str) -> None:
    raw = scanindex.with_fail_reason(small(more=before), [b"r 1", b'r "2"'])
    assert raw == small(more=after)


# --- random ---------------------------------------------------------------------------------

lines = st.sampled_from(
    [b"PKGNAME=foo-1.0\n", b"PKGNAME=\n", b"\n", b"PKG_LOCATION=a/b\n", b"ALL_DEPENDS= x\n",
     b"\0", b"PKGNAME", b"=", b"PKGNAME=", b"x" * 400 + b"\n", b"\nPKGNAME=b-12\n", b"DEPENDS=\n"]
)  # fmt: skip
scans = st.lists(st.one_of(lines, st.binary(max_size=5)), max_size=30).map(b"".join)


@given(scans, st.lists(st.integers(0, 3000), max_size=12), st.sampled_from([500, 1 << 20]))
def test_where_the_text_is_cut_makes_no_difference(
    scan: bytes, cuts: list[int], longest: int
) -> None:
    ends = sorted({0, len(scan), *(cut % (len(scan) + 1) for cut in cuts)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scanindex, "LONGEST_RECORD", longest)
        patch.setattr(scanindex, "_HEAD", longest // 2)
        whole = texts(scan)
        assert texts(*(scan[a:b] for a, b in pairwise(ends))) == whole
        assert texts(*(scan[at : at + 1] for at in range(len(scan)))) == whole
    for one in whole:
        if isinstance(one, Text):
            assert scan[one.start : one.start + len(one.raw)] == one.raw


@given(st.one_of(scans, st.binary(max_size=300)), st.sampled_from([None, b"a/b"]))
def test_nothing_is_ever_raised(scan: bytes, pkgpath: bytes | None) -> None:
    for text in texts(scan):
        found = text if isinstance(text, Refusal) else scanindex.read(text, pkgpath)
        if isinstance(found, Refusal):
            assert found.where
            assert found.why
        else:
            assert scanindex.read(Text(1, 1, found.raw), found.pkgpath) == found
            assert found.brief
            scanindex.with_fail_reason(scanindex.with_depends(found.raw, [b"a-1"]), [b"r"])
