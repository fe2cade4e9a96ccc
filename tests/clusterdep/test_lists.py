"""Search, breaks, and lists that come in pages."""

from __future__ import annotations

import asyncio
import json
import os

import grpc
import pytest
from dep_daemon import Daemon, built, failed, record
from hypothesis import given
from hypothesis import strategies as st
from test_dep_cli import ask

from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.core import dewey
from clusterdep.core.search import Candidate, search
from clusterdep.lists import PAGE

TREE = (
    record("liba-1.0"),
    record("libb-1.0", ["liba-[0-9]*"]),
    record("prog-1.0", ["libb-[0-9]*"]),
    record("skipped-1.0", ["libb-[0-9]*"], PKG_SKIP_REASON="no"),
    record("after-1.0", ["skipped-[0-9]*", "liba-[0-9]*"]),
    record("other-1.0", MAINTAINER="jane@example.org", CATEGORIES="www lib"),
)


async def names(stream: grpc.aio.UnaryStreamCall[pb.PackageRequest, pb.Packages]) -> list[str]:
    return [package.pkgname async for page in stream for package in page.packages]


async def found(dep: Daemon, words: str, limit: int = 0) -> list[str]:
    return await names(dep.caller.query.Search(pb.SearchRequest(words=words, limit=limit)))


async def test_search_by_words_and_by_pattern(dep: Daemon) -> None:
    await dep.load(*TREE)
    assert await found(dep, "LIB") == ["liba-1.0", "libb-1.0", "other-1.0"]
    assert await found(dep, "libb") == ["libb-1.0"]
    assert await found(dep, "jane") == ["other-1.0"]
    assert await found(dep, "jane www") == ["other-1.0"]
    assert await found(dep, "jane libb") == []
    assert await found(dep, "libb cat") == ["libb-1.0"]
    assert await found(dep, "lib", limit=1) == ["liba-1.0"]
    assert await found(dep, "lib?-[0-9]*") == ["liba-1.0", "libb-1.0"]
    assert await found(dep, "{prog,liba}>=1") == ["liba-1.0", "prog-1.0"]
    assert await found(dep, "cat/lib*") == ["liba-1.0", "libb-1.0"]
    for words, said in (("", "words is empty"), ("{a", "is not closed"), ("x" * 2000, "1024")):
        with pytest.raises(grpc.RpcError) as error:
            await found(dep, words)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert said in str(error.value.details())
    code, out, _ = await ask(dep, "search", "lib", "b-1.0", "--json")
    assert code == 0 and json.loads(out)["pkgname"] == "libb-1.0"
    assert await ask(dep, "search", "nothing") == (1, "", "")


def test_what_fits_best_comes_first() -> None:
    names = ("py-foo-1.0", "foobar-2.0", "foo-1.0", "bar-1.0", "x-1.0")
    paths = ("devel/py-foo", "devel/foobar", "devel/foo", "devel/foo", "misc/x")
    candidates = [
        Candidate(n, name, path, b"CATEGORIES=foo\n" if name == "x-1.0" else b"")
        for n, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    assert search("foo", candidates, 10) == [2, 3, 1, 0, 4]


@given(
    st.text(alphabet="ab-1/*?[]{},<>=. ", max_size=8),
    st.lists(st.text(alphabet="ab-1.", min_size=1, max_size=6), max_size=8),
)
def test_search_is_a_filter_and_never_fails_otherwise(text: str, names: list[str]) -> None:
    candidates = [Candidate(n, name, f"a/{name}", b"") for n, name in enumerate(names)]
    try:
        some = search(text, candidates, 1000)
    except dewey.PatternError:
        return
    assert len(set(some)) == len(some)
    if not set(text) & set("[]*?{}<>"):
        words = text.split()
        fitting = {
            n
            for n, name in enumerate(names)
            if words and all(word in name or word in f"a/{name}" for word in words)
        }
        assert set(some) == fitting
    elif "/" not in text:
        pattern = text.strip().encode()
        assert some == [n for n, x in enumerate(names) if dewey.match(pattern, x.encode())]


async def test_breaks_is_what_waits_for_a_package_and_could_be_built(dep: Daemon) -> None:
    await dep.load(*TREE)

    async def broken(name: str) -> list[str]:
        return await names(dep.caller.query.Breaks(pb.PackageRequest(package=name)))

    assert await broken("liba") == ["libb-1.0", "prog-1.0", "after-1.0"]
    assert await broken("libb") == ["prog-1.0"]
    assert await broken("prog") == []
    by_name = {grant.pkgname: grant for grant in (await dep.exchange()).grants}
    await dep.exchange(results=[failed(by_name["liba-1.0"]), built(by_name["other-1.0"])])
    assert (await dep.statuses())["prog-1.0"] == "blocked"
    assert await broken("liba") == ["libb-1.0", "prog-1.0", "after-1.0"]
    assert (await ask(dep, "breaks", "libb"))[1] == "prog-1.0 (blocked)\n"
    code, _, err = await ask(dep, "breaks", "nothing")
    assert code == os.EX_DATAERR and "no package 'nothing'" in err


async def test_long_lists_come_in_pages_and_in_scan_order(dep: Daemon) -> None:
    count = 2 * PAGE + 10
    tree = [record(f"p{n}-1.0", [] if not n else [f"p{n // 2}-[0-9]*"]) for n in range(count)]
    await dep.load(b"".join(tree))
    everything = [f"p{n}-1.0" for n in range(count)]
    request = pb.PackageRequest(package="p0", transitive=True)
    pages = [len(page.packages) async for page in dep.caller.query.RequiredBy(request)]
    assert pages == [PAGE, PAGE, 9]
    assert await names(dep.caller.query.RequiredBy(request)) == everything[1:]
    assert list(await dep.statuses()) == everything
    last = pb.PackageRequest(package=f"p{count - 1}", transitive=True)
    chain = [
        requirement.pkgname
        async for page in dep.caller.query.Requires(last)
        for requirement in page.requirements
    ]
    wanted, n = [], count - 1
    while n:
        n //= 2
        wanted.append(f"p{n}-1.0")
    assert chain == wanted[::-1]
    jobs = pb.ListOpenJobsRequest(limit=-1)
    with pytest.raises(grpc.RpcError) as error:
        await names(dep.caller.query.ListOpenJobs(jobs))
    assert "limit is -1" in str(error.value.details())


async def test_a_list_survives_what_changes_while_it_is_read(dep: Daemon) -> None:
    count = 6 * PAGE
    await dep.load(b"".join(record(f"p{n}-1.0", CATEGORIES="x" * 200) for n in range(count)))
    stream = dep.caller.query.ListPackages(pb.ListPackagesRequest(profile="p"))
    pages = aiter(stream)
    assert len((await anext(pages)).packages) == PAGE
    await dep.load(record("only-1.0"))
    rest = [package.pkgname async for page in pages for package in page.packages]
    assert set(rest) <= {f"p{n}-1.0" for n in range(count)}
    assert list(await asyncio.wait_for(dep.statuses(), 10)) == ["only-1.0"]
