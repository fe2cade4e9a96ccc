"""Patterns to requirements: the cases that are known, and random ones beside an oracle."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import dewey_oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterdep.core.buildable import Buildable, alone, classify, summary
from clusterdep.core.resolve import Obstacle, Package, Problem, Resolver, parse_token


def package(key: int, pkgname: str, *tokens: str) -> Package:
    words = [token if ":" in token else f"{token}:../../x/y" for token in tokens]
    return Package(key, (0, key), pkgname.encode(), tuple(word.encode() for word in words))


def depends(resolver: Resolver, key: int) -> list[str]:
    return [name.decode() for name in resolver.depends(key)]


# names in the scan, tokens of the package, what they come to
CASES = [
    (["liba-1.0", "liba-2.0"], ["liba>=1"], ["liba-2.0"]),
    (["node-20.1", "node-25.1"], ["node>=10", "node>=20<21"], ["node-25.1", "node-20.1"]),
    (["node-20.1", "node-25.1"], ["node>=20<21", "node>=10"], ["node-20.1"]),
    (["libx-1.0", "liby-1.0"], ["{libx,liby}-[0-9]*"], ["liby-1.0"]),
    (["mpg123-1.2", "mpg123-nas-1.2", "mpg123-esound-1.2"], ["mpg123{,-esound,-nas}>=1"],
     ["mpg123-nas-1.2"]),
    (["foo-1.0", "foo-1.00"], ["foo-[0-9]*"], ["foo-1.00"]),
    (["a-1.0", "b-1.0"], ["b>=1", "a>=1", "b>=0", "a-[0-9]*"], ["b-1.0", "a-1.0"]),
    (["a-1.0", "a-1.0nb1"], ["a-1.0{,nb[0-9]*}"], ["a-1.0nb1"]),
    ([], ["self-[0-9]*"], ["self-1.0"]),
    (["perl-5.42"], ["perl>=5.24", "perl<6", "perl>=5.24"], ["perl-5.42"]),
    (["a-1.0"], [], []),
]  # fmt: skip


@pytest.mark.parametrize(("names", "tokens", "chosen"), CASES)
def test_the_best_candidate_is_chosen(
    names: list[str], tokens: list[str], chosen: list[str]
) -> None:
    for order in (names, names[::-1]):
        scan = [package(at, name) for at, name in enumerate(order)]
        resolver = Resolver([*scan, package(99, "self-1.0", *tokens)])
        assert depends(resolver, 99) == chosen
        resolution = resolver.resolution(99)
        assert resolution is not None
        assert resolution.problems == ()
        assert set(resolution.choices) == set(resolution.requires)
        assert len(resolution.choices) == len(tokens)


def test_each_token_knows_which_requirement_meets_it() -> None:
    resolver = Resolver(
        [
            package(10, "node-20.1"),
            package(11, "node-25.1"),
            package(12, "a-1", "node<21", "node>=10", "none-[0-9]*", "node>24"),
        ]
    )
    resolution = resolver.resolution(12)
    assert resolution is not None
    assert resolution.choices == (10, 10, None, 11)
    assert resolution.requires == (10, 11)
    assert resolution.problems == (Problem(Obstacle.UNMATCHED, b"none-[0-9]*"),)


@pytest.mark.parametrize(
    ("token", "obstacle", "said", "reason"),
    [
        (
            "py3-daemon>=2.3.0:../../devel/py-daemon",
            Obstacle.UNMATCHED,
            "no package matches py3-daemon>=2.3.0",
            b'could not resolve dependency "py3-daemon>=2.3.0"',
        ),
        (
            "half-1.0",
            Obstacle.TOKEN,
            "malformed dependency half-1.0: it has no :../../category/package after the pattern",
            b'malformed dependency "half-1.0": it has no :../../category/package after the pattern',
        ),
        (
            ":../../devel/p5-POE-Test-Loops",
            Obstacle.TOKEN,
            "malformed dependency :../../devel/p5-POE-Test-Loops: "
            "it has no pattern before the colon",
            b'malformed dependency ":../../devel/p5-POE-Test-Loops": '
            b"it has no pattern before the colon",
        ),
        (
            "foo>=1:../devel/foo",
            Obstacle.TOKEN,
            "malformed dependency foo>=1:../devel/foo: "
            "what follows the colon does not begin with ../../",
            b'malformed dependency "foo>=1:../devel/foo": '
            b"what follows the colon does not begin with ../../",
        ),
        (
            "{foo-1.0:../../devel/foo",
            Obstacle.PATTERN,
            "malformed pattern {foo-1.0: a { is not closed by a }",
            b'malformed pattern "{foo-1.0": a { is not closed by a }',
        ),
    ],
)
def test_what_leads_to_nothing_concerns_its_package_alone(
    token: str, obstacle: Obstacle, said: str, reason: bytes
) -> None:
    asking = Package(1, (0, 1), b"asks-1", (token.encode(), b"a>=1:../../x/a", token.encode()))
    resolver = Resolver([package(0, "a-1"), asking, package(2, "needs-1", "asks-[0-9]*")])
    resolution = resolver.resolution(1)
    assert resolution is not None
    (problem,) = resolution.problems
    assert (problem.obstacle, str(problem), problem.reason) == (obstacle, said, reason)
    assert resolution.requires == (0,)
    assert depends(resolver, 2) == ["asks-1"]


def test_a_token_is_split_at_its_first_colon() -> None:
    token = parse_token(b"a>=1:../../x/y:../../z")
    assert (token.pattern, token.pkgpath, token.why) == (b"a>=1", b"x/y:../../z", "")


def test_of_equal_names_the_first_in_scan_order_stands() -> None:
    packages = [
        Package(7, (3, 0), b"foo-1", (b"gone-[0-9]*:../../x/y",)),
        Package(8, (1, 1), b"foo-1", ()),
        Package(9, (1, 0), b"foo-1", ()),
        package(1, "user-1", "foo>=1"),
    ]
    resolver = Resolver(packages)
    assert resolver.standing(b"foo-1") == 9
    assert sorted(resolver.duplicates()) == [(7, 9), (8, 9)]
    assert resolver.resolution(7) is resolver.resolution(8) is None
    resolution = resolver.resolution(1)
    assert resolution is not None
    assert resolution.requires == (9,)
    assert resolver.apply(drop=[9]) == {9, 8, 1}
    assert resolver.resolution(1) != resolution
    assert resolver.apply(drop=[8]) == {8, 7, 1}
    assert resolver.standing(b"foo-1") == 7


def test_a_change_tells_whose_requirements_changed() -> None:
    resolver = Resolver(
        [package(0, "lib-1.0"), package(1, "a-1", "lib>=1"), package(2, "b-1", "lib>=1<2")]
    )
    assert resolver.apply([package(3, "lib-1.5")]) == {1, 2, 3}
    assert resolver.apply([package(3, "lib-2.0")]) == {2}
    assert depends(resolver, 1) == ["lib-2.0"]
    assert depends(resolver, 2) == ["lib-1.0"]
    assert resolver.apply([package(4, "other-1.0")], drop=[77]) == {4}
    assert resolver.apply([package(1, "a-1", "lib>=1", "lib-[0-9]*")]) == {1}
    assert resolver.apply([package(1, "a-2", "lib>=1", "lib-[0-9]*")]) == set()
    assert resolver.apply(drop=[0, 3]) == {0, 1, 2, 3}
    assert [depends(resolver, key) for key in (1, 2)] == [[], []]


def test_nothing_is_left_when_all_is_dropped() -> None:
    packages = [package(key, f"p{key}-1", f"p{key + 1}>=1", "{broken") for key in range(500)]
    resolver = Resolver()
    assert resolver.apply(packages) == set(range(500))
    assert resolver.apply(packages) == set()
    assert resolver.apply(drop=range(500)) == set(range(500))
    for name, value in vars(resolver).items():
        assert not value or name in ("rule", "_reverse")
    assert not any(vars(resolver._reverse).values())


# --- what could be built --------------------------------------------------------------------


def test_what_is_in_the_way_of_a_package() -> None:
    own = [
        alone(True, True, False),  # 0 skipped, whatever else
        alone(False, True, True),  # 1 prefailed
        alone(False, False, True),  # 2 unresolved
        *[alone(False, False, False)] * 9,
    ]
    requires = [[], [], [0], [0], [3, 1], [3, 2], [2], [], [7, 7], [10], [9, 8], [10]]
    found = classify(own, requires)
    assert found == [
        Buildable.SKIPPED,
        Buildable.PREFAILED,
        Buildable.UNRESOLVED,
        Buildable.BEHIND_SKIPPED,
        Buildable.BEHIND_PREFAILED,
        Buildable.BEHIND_UNRESOLVED,
        Buildable.BEHIND_UNRESOLVED,
        Buildable.YES,
        Buildable.YES,
        *[Buildable.CYCLE] * 3,
    ]
    assert summary(found) == (
        "12 packages: 2 buildable, 1 skipped, 1 prefailed, 1 unresolved, 1 indirectly skipped, "
        "1 indirectly prefailed, 2 behind unresolved, 3 in or behind a cycle"
    )
    assert summary([]) == "0 packages"
    assert classify([Buildable.YES], [[0]]) == [Buildable.CYCLE]


# --- beside the oracle ----------------------------------------------------------------------


def slow_version_order(one: bytes, other: bytes) -> bool:
    """Whether `one` is the better of two names."""
    sign = dewey_oracle.compare(one[one.rindex(b"-") + 1 :], other[other.rindex(b"-") + 1 :])
    return sign > 0 or (sign == 0 and one > other)


def slow_matches(token: bytes, name: bytes) -> bool:
    pattern, _, location = token.partition(b":")
    if not pattern or not location.startswith(b"../../"):
        return False
    with contextlib.suppress(dewey_oracle.MalformedError):
        return dewey_oracle.match(pattern, name)
    return False


def slow_resolve(
    packages: Sequence[Package],
) -> dict[int, tuple[tuple[int | None, ...], tuple[int, ...], int]]:
    """For each package that stands: choices, requires, number of distinct tokens without one."""
    standing: dict[bytes, Package] = {}
    for one in sorted(packages, key=lambda one: one.order):
        standing.setdefault(one.pkgname, one)
    result = {}
    for one in standing.values():
        choices: list[int | None] = []
        chosen: list[Package] = []
        lacking = set()
        for token in one.depends:
            found = [have for have in chosen if slow_matches(token, have.pkgname)]
            if not found:
                for candidate in standing.values():
                    if slow_matches(token, candidate.pkgname) and (
                        not found or slow_version_order(candidate.pkgname, found[0].pkgname)
                    ):
                        found = [candidate]
                chosen += found
            if not found:
                lacking.add(token)
            choices.append(found[0].key if found else None)
        result[one.key] = (tuple(choices), tuple(have.key for have in chosen), len(lacking))
    return result


def told(resolver: Resolver, packages: Iterable[Package]) -> dict[int, object]:
    result = {}
    for one in packages:
        resolution = resolver.resolution(one.key)
        if resolution is not None:
            lacking = len(resolution.problems)
            result[one.key] = (resolution.choices, resolution.requires, lacking)
    return result


words = st.sampled_from(
    [b"a-1", b"a-2", b"a-2.0", b"a-3nb1", b"b-1", b"b-1.0", b"b-2", b"a-b-1", b"c-1", b"c-2rc1"]
)
tokens = st.sampled_from(
    [b"a>=1", b"a>=2<3", b"a<3", b"{a,b}>=1", b"{a,b}-[0-9]*", b"a-*", b"a-[0-9]*", b"b-1", b"b>1",
     b"?-[12]*", b"c>=2", b"c<2", b"d>=1", b"*-1", b"{a", b"a-b>=1", b"a{,-b}>=1", b"a-2{,.0}"]
)  # fmt: skip
tokens = tokens.map(lambda pattern: pattern + b":../../x/y")
tokens |= st.sampled_from([b"half", b":../../x/y", b"a:b"])
packages = st.builds(
    Package,
    st.integers(0, 9),
    st.tuples(st.integers(0, 3), st.integers(0, 2)),
    words,
    st.lists(tokens, max_size=5).map(tuple),
)
scans = st.lists(packages, max_size=10, unique_by=lambda one: (one.key, one.order)).filter(
    lambda scan: len({one.key for one in scan}) == len({one.order for one in scan}) == len(scan)
)


@given(scans)
def test_a_scan_resolves_as_the_oracle_says(scan: list[Package]) -> None:
    assert told(Resolver(scan), scan) == slow_resolve(scan)


@given(scans, st.lists(st.tuples(st.lists(packages, max_size=4), st.sets(st.integers(0, 9)))))
def test_changes_come_to_what_a_full_resolve_says(
    scan: list[Package], changes: list[tuple[list[Package], set[int]]]
) -> None:
    resolver = Resolver(scan)
    now = {one.key: one for one in scan}
    for put, drop in changes:
        before = {key: resolver.resolution(key) for key in range(10)}
        old = dict(now)
        for key in drop:
            now.pop(key, None)
        taken = {one.order for one in now.values()}
        fresh = [one for one in put if one.order not in taken]
        fresh = list({one.order: one for one in fresh}.values())
        fresh = list({one.key: one for one in fresh}.values())
        now.update({one.key: one for one in fresh})
        said = resolver.apply(fresh, drop)
        after = slow_resolve(list(now.values()))
        assert told(resolver, {**old, **now}.values()) == after
        assert said == {key for key in range(10) if before[key] != resolver.resolution(key)}
        assert sorted(resolver.duplicates()) == sorted(
            (one.key, min((o.order, o.key) for o in now.values() if o.pkgname == one.pkgname)[1])
            for one in now.values()
            if one.key not in after
        )
