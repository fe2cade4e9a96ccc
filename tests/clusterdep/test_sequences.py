"""After any sequence of changes the database is what the same records give in one go."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.core import resolve
from clusterdep.core.graph import State
from clusterdep.feed import Feed
from clusterdep.ledger import Ledger
from clusterdep.orders import Orders
from clusterdep.render import package_message
from clusterdep.scans import Scans
from clusterdep.store.database import Store
from clusterdep.work import Work

SIZE = int(os.environ.get("TEST_SIZE", "1"))

PATHS = [f"{category}/{name}" for category in ("cat", "dev") for name in "abcd"]
NAMES = [
    f"{base}-{version}" for base in ("foo", "bar", "baz") for version in ("1.0", "1.1nb2", "2")
]
PATTERNS = ["foo>=1.1", "bar-[0-9]*", "{foo,baz}>=1.0", "baz<2", "foo-1.0", "nosuch>=1", "bar"]

names = st.sampled_from(NAMES)
paths = st.sampled_from(PATHS)
tokens = st.builds("{}:../../{}".format, st.sampled_from(PATTERNS), paths) | st.sampled_from(
    ["foo", "{foo:../../cat/a", "bar>=1:cat/a"]
)
reasons = st.sampled_from(["", "", "", "not here"])


@st.composite
def records(draw: st.DrawFn) -> str:
    """One record without its pkgpath."""
    lines = [
        f"PKGNAME={draw(names)}",
        f"ALL_DEPENDS={' '.join(draw(st.lists(tokens, max_size=3)))}",
    ]
    for key in ("PKG_SKIP_REASON", "PKG_FAIL_REASON"):
        if reason := draw(reasons):
            lines.append(f"{key}={reason}")
    if word := draw(st.sampled_from(["", "", "V=1", "V=2 W=3", "W=3 V=2"])):
        lines.append(f"MULTI_VERSION={word}")
    lines.append(f"SCAN_DEPENDS=Makefile ../../mk/{draw(st.sampled_from('xyz'))}.mk")
    return "\n".join(lines) + "\n"


scans = st.dictionaries(paths, st.lists(records(), max_size=3) | st.just("it hangs"), max_size=4)


async def each(*parts: pb.PutRecordsRequest) -> AsyncIterator[pb.PutRecordsRequest]:
    for part in parts:
        yield part


class World:
    """A profile in a database, and what can happen to it."""

    def __init__(self, directory: str) -> None:
        self.now = itertools.count(1_000_000)
        self.store = Store(Path(directory) / "clusterdep.db")
        self.ledger = Ledger(self.store, 60.0, lambda: float(next(self.now)))
        ids = itertools.count()
        scans = Scans(self.ledger, lambda: f"s{next(ids)}")
        self.feed = Feed(self.ledger, scans)
        self.work = Work(self.ledger, scans, 20.0, lambda: f"a{next(ids)}")
        self.orders = Orders(self.ledger, self.feed)

    async def scan(
        self, found: dict[str, list[str] | str], order: list[str], replace: bool
    ) -> None:
        """A delivery: a merge of some scans, or all there is; with an enumeration or without."""
        mode = pb.PutHeader.MODE_REPLACE if replace else pb.PutHeader.MODE_MERGE
        parts = [pb.PutRecordsRequest(header=pb.PutHeader(profile="p", mode=mode))]
        for path, texts in found.items():
            scan = pb.PutScan(pkgpath=path, inputs_digest=str(len(texts)))
            if isinstance(texts, str):
                scan.error = texts
            else:
                scan.records = "".join(texts).encode()
            parts.append(pb.PutRecordsRequest(scan=scan))
        parts.append(pb.PutRecordsRequest(end=pb.PutEnd(complete=True, enumeration=order)))
        await self.feed.put_records(each(*parts))

    async def build(self, *, built: bool, content: str) -> None:
        """Some open job is granted and ends."""
        host = pb.HostOffer(
            name="h", state=pb.HOST_STATE_READY, slots=1, free_slots=1, opsys="Linux"
        )
        request = pb.ExchangeRequest(dispatcher="d", hosts=[host])
        for grant in (await self.work.exchange(request)).grants:
            result = pb.Result(attempt=grant.attempt, fence=grant.fence, built=built)
            if built:
                digest = f"{hash((grant.attempt, content)) & 0xFFFF:064x}"
                result.artifact.MergeFrom(
                    pb.Artifact(
                        pkgname=grant.pkgname, sha256=digest, size=1, content_digest=content
                    )
                )
            else:
                result.blame = pb.BLAME_PACKAGE
                result.stage = "build"
            await self.work.exchange(pb.ExchangeRequest(dispatcher="d", results=[result]))

    def check(self) -> None:
        """Memory is what loading gives, and requirements are those of a full resolve."""
        assert self.ledger.check() == []
        catalog = self.ledger.catalog("p")
        packages = [
            resolve.Package(
                entry.id,
                entry.order,
                entry.pkgname.encode(),
                tuple(self.depends(entry.id)),
                entry.pkgpath.encode(),
                not (entry.skip_reason or entry.record_fails),
            )
            for entry in catalog.entries.values()
        ]
        full = resolve.Resolver(packages, resolve.Rule(catalog.profile.resolver))
        doubles = dict(full.duplicates())
        for number, entry in catalog.entries.items():
            resolution = full.resolution(entry.id)
            ids = [catalog.entries[p].id for p in catalog.graph.requires[number]]
            assert ids == list(resolution.requires if resolution else ())
            assert bool(resolution and resolution.problems) == (number in catalog.problems)
            assert entry.duplicate == (entry.id in doubles)
        everything = set(range(len(catalog.graph.state)))
        assert all(
            catalog.graph.state[p] is State.ABSENT for p in everything - set(catalog.entries)
        )

    def depends(self, package_id: int) -> list[bytes]:
        row = self.store.row("record_text", (package_id,))
        assert row is not None
        line = next(x for x in bytes(row["text"]).splitlines() if x.startswith(b"ALL_DEPENDS="))
        return line.partition(b"=")[2].split()


orders = st.permutations(PATHS).map(lambda order: order[:6])
wanted = st.sampled_from([*PATHS, "cat", "foo>=1"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("scan"), scans, st.just([]), st.just(False)),
        st.tuples(
            st.just("scan"), scans, st.permutations(PATHS).map(lambda p: p[:6]), st.just(False)
        ),
        st.tuples(st.just("scan"), scans, st.just([]), st.just(True)),
        st.tuples(st.just("build"), st.booleans(), st.sampled_from(["x", "y"])),
        st.tuples(st.just("build"), st.just(True), st.sampled_from(["x", "y"])),
        st.tuples(
            st.just("select"), st.lists(st.sampled_from([*PATHS, "cat", "foo>=1"]), max_size=2)
        ),
        st.tuples(st.just("profile"), st.sampled_from(["inputs", "version", "exists"])),
        st.tuples(st.just("resolver"), st.sampled_from(["pbulk", "prefer-buildable"])),
        st.tuples(st.just("retry")),
        st.tuples(st.just("lose")),
    ),
    min_size=1,
    max_size=8,
)


async def play(world: World, story: list[tuple[object, ...]]) -> None:
    world.ledger.create_profile(pb.Profile(name="p"))
    for word, *rest in story:
        catalog = world.ledger.catalog("p")
        if word == "scan":
            await world.scan(*rest)  # type: ignore[arg-type]
        elif word == "build":
            await world.build(built=bool(rest[0]), content=str(rest[1]))
        elif word == "select":
            world.orders.select("p", list(rest[0]))  # type: ignore[call-overload]
        elif word == "profile":
            await world.orders.put_profile(pb.Profile(name="p", policy=str(rest[0])))
        elif word == "resolver":
            await world.orders.put_profile(pb.Profile(name="p", resolver=str(rest[0])))
        elif word == "retry":
            world.orders.retry("p", [])
        else:
            world.orders.lose_artifacts("p", [a.sha256 for a in catalog.artifacts.values()][:1])
        world.check()


@settings(max_examples=250 * SIZE, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_any_sequence(story: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        try:
            asyncio.run(play(world, story))
        finally:
            world.store.close()


@settings(max_examples=40 * SIZE, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(scans, min_size=2, max_size=3))
def test_questions_are_answered_between_any_two_steps(deliveries: list[dict[str, Any]]) -> None:
    async def look(catalog: Catalog, steps: Iterator[None]) -> None:
        for _ in steps:
            catalog.count()
            for package in list(catalog.in_order()):
                package_message(catalog, package, depth=True)
            assert all(package in catalog.entries for package in catalog.ready)

    async def tell(world: World) -> None:
        world.ledger.create_profile(pb.Profile(name="p"))
        for found in deliveries:
            await world.scan(found, [], replace=True)
            world.check()

    with tempfile.TemporaryDirectory() as directory:
        world = World(directory)
        world.ledger.work_off = look  # type: ignore[method-assign]
        try:
            asyncio.run(tell(world))
        finally:
            world.store.close()
