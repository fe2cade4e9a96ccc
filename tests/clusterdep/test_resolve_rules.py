"""Rules of choice: what is chosen, and where they differ; and random sequences of
changes beside a full resolve that is slow and obviously right. TEST_SIZE says how many."""

from __future__ import annotations

import os
import random
from functools import cache

import dewey_oracle
import pytest

from clusterdep.core.resolve import Difference, Package, Resolver, Rule

SEQUENCES = 3000 * int(os.environ.get("TEST_SIZE", "1"))


def package(
    key: int, pkgname: str, *tokens: str, pkgpath: str = "", buildable: bool = True
) -> Package:
    path = pkgpath or f"cat/{pkgname.rpartition('-')[0]}"
    words = tuple(
        (token if ":" in token else f"{token}:../../cat/none").encode() for token in tokens
    )
    return Package(key, (0, key), pkgname.encode(), words, path.encode(), buildable)


def names(resolver: Resolver, key: int) -> list[str]:
    return [name.decode() for name in resolver.depends(key)]


# candidates (name, pkgpath, buildable), tokens, what pbulk chooses, what prefer-buildable does
CASES = [
    ([("libx-1.0", "", True), ("liby-1.0", "", False)], ["{libx,liby}-[0-9]*"],
     ["liby-1.0"], ["libx-1.0"]),
    ([("lib-1.0", "x/lib", True), ("lib-2.0", "x/lib2", True)], ["lib>=1:../../x/lib"],
     ["lib-2.0"], ["lib-1.0"]),
    ([("lib-1.0", "x/lib", False), ("lib-2.0", "x/lib2", True)], ["lib>=1:../../x/lib"],
     ["lib-2.0"], ["lib-2.0"]),
    ([("lib-1.0", "x/lib", False), ("lib-2.0", "x/lib2", False)], ["lib>=1:../../x/lib"],
     ["lib-2.0"], ["lib-1.0"]),
    ([("lib-1.0", "", True), ("lib-2.0", "", True)], ["lib>=1"], ["lib-2.0"], ["lib-2.0"]),
    ([("lib-1.0", "", True), ("lib-2.0", "", False)], ["lib>=2"], ["lib-2.0"], ["lib-2.0"]),
    # What was chosen already stays first.
    ([("lib-1.0", "x/one", True), ("lib-2.0", "x/two", True)],
     ["lib>=1:../../x/one", "lib>=1:../../x/two"], ["lib-2.0"], ["lib-1.0"]),
    ([("lib-1.0", "x/one", True), ("lib-2.0", "x/two", True)],
     ["lib<2:../../x/one", "lib>=1:../../x/two"], ["lib-1.0"], ["lib-1.0"]),
    ([("lib-1.0", "x/one", True), ("lib-2.0", "x/two", True)],
     ["lib>=1:../../x/one", "lib>=2:../../x/two"], ["lib-2.0"], ["lib-1.0", "lib-2.0"]),
]  # fmt: skip


@pytest.mark.parametrize(("candidates", "tokens", "pbulk", "preferred"), CASES)
def test_each_rule_chooses_its_best(
    candidates: list[tuple[str, str, bool]],
    tokens: list[str],
    pbulk: list[str],
    preferred: list[str],
) -> None:
    scan = [
        package(at, name, pkgpath=path, buildable=good)
        for at, (name, path, good) in enumerate(candidates)
    ]
    for order in (scan, scan[::-1]):
        found = [Resolver([*order, package(99, "self-1", *tokens)], rule) for rule in Rule]
        assert [names(resolver, 99) for resolver in found] == [pbulk, preferred]
        assert not found[0].differences
        assert bool(found[1].differences) == (pbulk != preferred)


def test_differences_name_pattern_and_both_choices() -> None:
    resolver = Resolver(
        [
            package(0, "libx-1.0"),
            package(1, "liby-1.0", buildable=False),
            package(2, "user-1", "{libx,liby}-[0-9]*", "libx>=0", "{libx,liby}-[0-9]*"),
        ],
        Rule.PREFER_BUILDABLE,
    )
    assert dict(resolver.differences) == {2: (Difference(b"{libx,liby}-[0-9]*", 0, 1),)}
    # The other one can be built, too: it is the greater one, and nothing differs any more.
    assert resolver.apply([package(1, "liby-1.0")]) == {2}
    assert names(resolver, 2) == ["liby-1.0", "libx-1.0"]
    assert not resolver.differences


def test_what_makes_no_difference_to_others_touches_nobody() -> None:
    resolver = Resolver(
        [package(0, "lib-1.0"), package(1, "user-1", "lib>=1")], Rule.PREFER_BUILDABLE
    )
    assert resolver.apply([package(0, "lib-1.0", buildable=False)]) == set()
    assert resolver.apply([package(0, "lib-1.0", pkgpath="new/lib")]) == set()
    assert names(resolver, 1) == ["lib-1.0"]


# --- beside an oracle -----------------------------------------------------------------------


@cache
def matches(token: bytes, name: bytes) -> bool:
    pattern, colon, location = token.partition(b":")
    if not colon or not pattern or not location.startswith(b"../../"):
        return False
    try:
        return dewey_oracle.match(pattern, name)
    except dewey_oracle.MalformedError:
        return False


@cache
def greater(one: bytes, other: bytes) -> bool:
    sign = dewey_oracle.compare(one.rpartition(b"-")[2], other.rpartition(b"-")[2])
    return sign > 0 or (sign == 0 and one > other)


def better(rule: Rule, location: bytes, one: Package, other: Package) -> bool:
    """Whether `one` is to be chosen rather than `other`."""
    if rule is Rule.PREFER_BUILDABLE:
        if one.buildable != other.buildable:
            return one.buildable
        if (one.pkgpath == location) != (other.pkgpath == location):
            return one.pkgpath == location
    return greater(one.pkgname, other.pkgname)


def chosen_by(rule: Rule, asking: Package, standing: list[Package]) -> list[Package | None]:
    """For each token the package that meets it."""
    choices: list[Package | None] = []
    for token in asking.depends:
        best = next((one for one in choices if one and matches(token, one.pkgname)), None)
        if best is None:
            location = token.partition(b":../../")[2]
            for one in standing:
                if matches(token, one.pkgname) and (
                    best is None or better(rule, location, one, best)
                ):
                    best = one
        choices.append(best)
    return choices


def check(resolver: Resolver, packages: list[Package], rule: Rule) -> None:
    """Compares everything that the resolver says with what follows from the packages alone."""
    first: dict[bytes, Package] = {}
    for one in sorted(packages, key=lambda one: one.order):
        first.setdefault(one.pkgname, one)
    standing = list(first.values())
    differences = {}
    for one in packages:
        said = resolver.resolution(one.key)
        if first[one.pkgname] is not one:
            assert said is None
            continue
        choices = chosen_by(rule, one, standing)
        distinct = list(dict.fromkeys(choice for choice in choices if choice is not None))
        assert said is not None
        assert said.choices == tuple(None if c is None else c.key for c in choices)
        assert said.requires == tuple(choice.key for choice in distinct)
        assert bool(said.problems) == (None in choices)
        other = [
            Difference(token.partition(b":")[0], ours.key, theirs.key)
            for token, ours, theirs in zip(
                one.depends, choices, chosen_by(Rule.PBULK, one, standing), strict=True
            )
            if ours is not None and theirs is not None and ours is not theirs
        ]
        if other:
            differences[one.key] = list(dict.fromkeys(other))
    assert {key: list(some) for key, some in resolver.differences.items()} == differences


NAMES = [b"a-1", b"a-2", b"a-2.0", b"a-3nb1", b"b-1", b"b-1.0", b"b-2", b"a-b-1", b"c-1", b"c-2rc1"]
PATHS = [b"x/a", b"x/b", b"y/a", b"z/c"]
PATTERNS = [b"a>=1", b"a>=2<3", b"a<3", b"{a,b}>=1", b"{a,b}-[0-9]*", b"a-*", b"b-1", b"b>1",
            b"?-[12]*", b"c>=2", b"c<2", b"d>=1", b"*-1", b"{a", b"a-b>=1", b"a{,-b}>=1",
            ]  # fmt: skip
TOKENS = [pattern + b":../../" + path for pattern in PATTERNS for path in PATHS[:2]]
TOKENS += [b"half", b":../../x/y", b"a:b"]


def anything(chance: random.Random, key: int) -> Package:
    tokens = chance.choices(TOKENS, k=chance.randrange(5))
    order = (chance.randrange(4), key)
    good = chance.random() < 0.6
    return Package(
        key, order, chance.choice(NAMES), tuple(tokens), chance.choice(PATHS), buildable=good
    )


def changed_a_little(chance: random.Random, one: Package) -> Package:
    """One thing about a package is another."""
    fresh = anything(chance, one.key)
    name = chance.choice(["order", "pkgname", "depends", "pkgpath", "buildable"])
    return one._replace(**{name: getattr(fresh, name)})


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("rule", list(Rule))
def test_any_sequence_of_changes_comes_to_a_full_resolve(rule: Rule, part: int) -> None:
    for number in range(part, SEQUENCES, 4):
        chance = random.Random(number)
        now = {key: anything(chance, key) for key in range(chance.randrange(10))}
        resolver = Resolver(now.values(), rule)
        check(resolver, list(now.values()), rule)
        for _ in range(chance.randrange(1, 8)):
            drop = set(chance.sample(range(10), chance.randrange(3)))
            put = {
                key: changed_a_little(chance, now[key])
                if key in now and chance.random() < 0.7
                else anything(chance, key)
                for key in chance.sample(range(10), chance.randrange(4))
            }
            before = {key: resolver.resolution(key) for key in range(10)}
            said = resolver.apply(put.values(), drop)
            now = {key: one for key, one in now.items() if key not in drop} | put
            check(resolver, list(now.values()), rule)
            assert said == {key for key in range(10) if before[key] != resolver.resolution(key)}
