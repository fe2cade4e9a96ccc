"""Versions and patterns: the tables of what pbulk does, and random ones beside an oracle."""

from __future__ import annotations

import ctypes

import dewey_oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterdep.core import dewey

VERSIONS = """
1.0 = 1.0.0             | 1.0 = 1               | 1.0 < 1.0nb1          | 1.0nb2 < 1.0nb10
1.0nb9 < 1.0.1          | 2.6.4.1 > 2.6.4nb1    | 1.0alpha9 < 1.0beta1  | 1.0beta1 < 1.0rc1
1.0rc1 = 1.0pre1        | 1.0pre2 > 1.0rc1      | 1.0pre20240101 > 1.0rc1 | 1.0rc1 < 1.0
1.0.rc1 > 1.0rc1        | 1.0rc = 1.0rc0        | 1.0alphabeta < 1.0beta | 1.0prerc1 < 1.0rc
1.0pl1 = 1.0.1          | 1.0pl1 = 1.0_1        | 3.7pl3nb1 = 3.7.3nb1  | 1.0pl1 > 1.0
1.0a = 1.0.1            | 1.0a > 1.0.0.1        | 1.0a = 1.0A           | 1.0a > 1.0.a
1.0a < 1.0a1            | 1.0a > 1.0alpha       | 1.0p1 > 1.0pl1        | 1.0patch1 > 1.0pl1
1.0b > 1.0beta          | 1.0c = 1.0.3          | 1.0z = 1.0.26         | 1.0d = 1.0.4
1.0dev = 1.0.4.5.22     | 1.0dev > 1.0          | 1.0post1 > 1.0        | 1.0e1 > 1.0.5.1
1.0nb = 1.0             | 1.0nb0 = 1.0          | 1.0nb1a = 1.0anb1     | 1.0nbx = 1.0x
1.0+git = 1.0git        | 1.0+1 < 1.01          | 1.01 = 1.1            | 1.001 = 1.1
1.10 > 1.9              | 1..0 = 1.0            | 1.0. = 1.0            | .1 > 0.1
1.0..1 < 1.0.1          | 0 = EMPTY             | 20240101 > 1.0        | 4294967296 > 1
""".replace("\n", "|")

ROWS = [tuple(row.split()) for row in VERSIONS.split("|") if row.strip()]


def test_the_table_is_whole() -> None:
    assert len(ROWS) == 52


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_versions_compare_as_in_the_table(row: tuple[str, str, str]) -> None:
    one, relation, other = (text.replace("EMPTY", "").encode() for text in row)
    sign = {b"<": -1, b"=": 0, b">": 1}[relation]
    assert dewey.compare(one, other) == sign
    assert dewey.compare(other, one) == -sign


# pattern, names that match, names that do not
PATTERNS = [
    ("foo", "", "foo-1.0"),
    ("foo-[0-9]*", "foo-1.0nb3", "foo-bar-1.0"),
    ("foo-*", "foo-bar-1.0", ""),
    ("foo-1.0", "foo-1.0", "foo-1.0nb1"),
    ("foo-1.0*", "foo-1.0.1", ""),
    ("foo-1.0{,nb*}", "foo-1.0 foo-1.0nb12", ""),
    ("foo-1.0{,nb[0-9]*}", "foo-1.0 foo-1.0nb1", "foo-1.0.1"),
    ("foo>=1.0", "foo-1.0", "foo-1.0rc1"),
    ("foo<1.0", "foo-1.0rc1", "foo-1.0"),
    ("foo>1.0", "foo-1.0nb1", "foo-1.0"),
    ("foo<=1.0", "foo-1.0", "foo-1.0nb1"),
    ("foo>=1.0nb1", "foo-1.0nb1", "foo-1.0"),
    ("foo>=1.0<2", "foo-1.5 foo-2.0rc1 foo-2.0alpha", "foo-2"),
    ("foo>=1.0<=2", "foo-2", "foo-2nb1"),
    ("foo>1.0<1.0nb5", "foo-1.0nb3", "foo-1.0nb5"),
    ("foo<2>=1.0", "foo-0.5", ""),
    ("foo<2<3", "foo-2.5", ""),
    ("foo>=1>=2", "", "foo-1.5"),
    ("foo==1.0", "foo==1.0", "foo-1.0"),
    ("foo!=1.0", "", "foo-1.1"),
    ("foo>=", "foo-0 foo-1", ""),
    ("foo<", "", "foo-1"),
    ("foo>=1.0", "", "foo-bar-1.0 fo-1.0 Foo-1.0 foo"),
    ("foo>=0", "foo- foo-abc", "foo-1.0-2"),
    ("foo-1>=0", "foo-1-2", ""),
    ("{foo,bar}>=1.0", "foo-1.0 bar-1.0", ""),
    ("{foo>=1,bar-[0-9]*}", "bar-0.1", "foo-0.1"),
    ("foo{,-gtk,-x11}>=7", "foo-7.0 foo-gtk-7.0", "foo-qt-7.0"),
    ("{foo-[0-9]*,bar>=2}", "foo-1", "bar-1"),
    ("{a,b{c,d}}-[0-9]*", "bd-1 bc-1 a-1", "b-1 ad-1"),
    ("{a,b}{c,d}-[0-9]*", "ad-1", "a-1"),
    ("{foo,}-1.0", "-1.0 foo-1.0", ""),
    ("foo>=2.0{,nb1}", "foo-2.0nb1", ""),
    ("foo}-1.0", "foo}-1.0", ""),
    ("foo-[0-9", "", "foo-1"),
    ("foo-[!0-9]*", "foo-x1", "foo-1"),
    ("lib*foo>=1.0", "", "libxfoo-1.0"),
    ("*", "foo-1", ".foo-1"),
    ("?oo-1", "foo-1", ""),
    ("[fg]oo-[0-9]*", "foo-1", ""),
    ("f*-[0-9]*", "foo-1", ""),
    ("foo-\\*", "foo-*", "foo-1"),
    ("py3[0-9]*-foo-[0-9]*", "py312-foo-1", ""),
    ("foo>=1.0pl2", "foo-1.0.2", ""),
    ("foo>=1.0alpha", "foo-1.0beta", ""),
    ("foo>=1.0,2", "", "foo-1.0"),
]


@pytest.mark.parametrize(("pattern", "yes", "no"), PATTERNS)
def test_patterns_match_as_in_the_table(pattern: str, yes: str, no: str) -> None:
    for name in yes.split():
        assert dewey.match(pattern.encode(), name.encode()), name
    for name in no.split():
        assert not dewey.match(pattern.encode(), name.encode()), name


@pytest.mark.parametrize(
    ("better", "worse"),
    [("foo-1.00", "foo-1.0"), ("mpg123-nas-1.33.4", "mpg123-1.33.4"), ("a-1.1", "z-1.0")],
)
def test_of_equal_versions_the_greater_name_is_better(better: str, worse: str) -> None:
    names = [better.encode(), worse.encode()]
    assert max(names, key=dewey.rank) == max(reversed(names), key=dewey.rank) == names[0]


@pytest.mark.parametrize("pattern", [b"{foo-1.0", b"{a,{b}-1", b"{a,b}{c", b"a{b", b"{{}"])
def test_an_open_brace_is_an_error_that_names_the_pattern(pattern: bytes) -> None:
    with pytest.raises(dewey.PatternError) as caught:
        dewey.compile_pattern(pattern)
    assert caught.value.pattern == pattern
    assert "not closed" in caught.value.why
    assert pattern.decode() in str(caught.value)


@pytest.mark.parametrize(
    "pattern", [b"{a,b}" * 20, b"{" * 400 + b"," + b"}" * 400 + b"{a,b,c,d,e,f}" * 15, b"x" * 2000]
)
def test_a_pattern_can_not_ask_for_too_much(pattern: bytes) -> None:
    with pytest.raises(dewey.PatternError, match="more than"):
        dewey.compile_pattern(pattern)


def test_a_glob_of_many_stars_is_decided() -> None:
    assert not dewey.match(b"*a" * 400 + b"b", b"a" * 5000)
    assert dewey.match(b"*a" * 400, b"a" * 5000)


def test_version_numbers_have_no_limit() -> None:
    long = b"9" * 20_000
    assert dewey.compare(b"1." + long, b"1.1" + b"0" * 20_000) == -1
    assert dewey.compare(b"1." + b"0" * 20_000 + b"7", b"1.7") == 0
    assert dewey.compare(b"1nb" + long, b"1nb2") == 1


def test_names_are_cut_at_the_last_dash() -> None:
    assert dewey.split_name(b"py312-foo-1.0nb2") == (b"py312-foo", b"1.0nb2")
    assert dewey.split_name(b"foo") == (b"foo", b"")


# --- beside the oracle ----------------------------------------------------------------------


def joined(*pieces: bytes, most: int = 8) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(pieces), max_size=most).map(b"".join)


versions = joined(
    b"0", b"1", b"2", b"10", b".", b"_", b"pl", b"alpha", b"beta", b"pre", b"rc", b"nb", b"a",
    b"N", b"B", b"P", b"z", b"+", b"-", b"\xe9",
)  # fmt: skip
names = st.builds(lambda base, version: base + b"-" + version, joined(b"a", b"b", b"-"), versions)
patterns = joined(
    b"a", b"b", b"-", b"a-", b"{", b",", b"}", b"{a,b}", b"{,nb1}", b"<", b">", b"<=", b">=", b"=",
    b"1", b"2", b".", b"nb", b"*", b"?", b"[", b"]", b"[0-9]", b"[!a]", b"[]a]", b"\\", b"!", b"^",
    most=10,
)  # fmt: skip


@given(versions, versions)
def test_versions_compare_as_the_oracle_says(one: bytes, other: bytes) -> None:
    assert dewey.compare(one, other) == dewey_oracle.compare(one, other)


@given(st.lists(versions, max_size=6))
def test_versions_are_totally_ordered(texts: list[bytes]) -> None:
    ordered = sorted(map(dewey.parse_version, texts))
    for at, one in enumerate(ordered):
        assert all(one <= other for other in ordered[at:])
        assert all(hash(one) == hash(other) for other in ordered if one == other)


@given(patterns, st.one_of(names, patterns))
def test_patterns_match_as_the_oracle_says(pattern: bytes, name: bytes) -> None:
    try:
        expected = dewey_oracle.match(pattern, name)
    except dewey_oracle.MalformedError:
        with pytest.raises(dewey.PatternError):
            dewey.match(pattern, name)
        return
    compiled = dewey.compile_pattern(pattern)
    assert compiled.match(name) == expected
    if expected:
        assert any(name.startswith(prefix) for prefix in compiled.prefixes)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_nothing_else_is_ever_raised(pattern: bytes, name: bytes) -> None:
    dewey.compare(pattern, name)
    try:
        dewey.match(pattern, name)
    except dewey.PatternError as error:
        assert str(error)


FNM_PERIOD = 4  # in every C library at hand
globs = joined(b"a", b"b", b"-", b".", b"*", b"?", b"[ab]", b"[!a]", b"[]b]", b"[a-b-]", b"\\*")


@given(globs.filter(lambda text: any(sign in text for sign in b"*?[")), joined(b"a", b"b", b"-.*]"))
def test_globs_match_as_the_c_library_says(glob: bytes, name: bytes) -> None:
    found = ctypes.CDLL(None).fnmatch(glob, name, FNM_PERIOD) == 0
    assert dewey.match(glob, name) == found
