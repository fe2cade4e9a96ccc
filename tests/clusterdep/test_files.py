"""SCAN_DEPENDS turned round, against the plainest way of doing it."""

from __future__ import annotations

import os
import posixpath
import re
import struct
from pathlib import Path

import pytest
from dep_daemon import Daemon, record
from hypothesis import given
from hypothesis import strategies as st

from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_feed import put
from clusterdep.core.files import NAMED, Paths, Readers, Reads, pack, real, unpack
from clusterdep.file_index import FileIndex
from clusterdep.scanfile import ScanFile
from clusterdep.store.database import Store

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CLUSTERDEP_TESTDATA", ROOT / "../shared/data"))


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("Makefile", "cat/foo/Makefile"),
        ("files/x.mk", "cat/foo/files/x.mk"),
        ("../../mk/bsd.pkg.mk", "mk/bsd.pkg.mk"),
        ("../../cat/bar/../../mk/x.mk", "mk/x.mk"),
        ("../bar/Makefile.common", "cat/bar/Makefile.common"),
        (".././foo//options.mk", "cat/foo/options.mk"),
        ("/usr/pkg/etc/mk.conf", "/usr/pkg/etc/mk.conf"),
        ("/usr/pkg//share/../etc/mk.conf", "/usr/pkg/etc/mk.conf"),
        ("/usr/pkgsrc/mk/compiler.mk", "mk/compiler.mk"),
        ("/usr/pkgsrc2/mk/compiler.mk", "/usr/pkgsrc2/mk/compiler.mk"),
        ("/usr/pkgsrc/cat/foo/../../mk/defaults/mk.conf", "mk/defaults/mk.conf"),
        ("/a/snapshot/of/it/cat/foo/../../mk/defaults/mk.conf", "mk/defaults/mk.conf"),
        ("../../../outside.mk", "/usr/outside.mk"),
    ],
)
def test_real_paths(word: str, path: str) -> None:
    assert real(word, "cat/foo", "/usr/pkgsrc") == path
    paths = Paths()
    (number,) = paths.files(pack([paths.reads("cat/foo", word.encode(), "/usr/pkgsrc")]))
    assert paths.path(number) == path


def test_the_tree_may_be_elsewhere_each_time() -> None:
    paths = Paths()
    for root in ("/snapshots/1", "/snapshots/2"):
        value = f"{root}/mk/compiler.mk {root}/cat/foo/../../mk/x.mk Makefile /etc/mk.conf"
        numbers = paths.files(pack([paths.reads("cat/foo", value.encode(), "/usr/pkgsrc")]))
        read = {paths.path(number) for number in numbers}
        assert read == {"mk/compiler.mk", "mk/x.mk", "cat/foo/Makefile", "/etc/mk.conf"}


def test_nothing_is_read() -> None:
    paths = Paths()
    packed = pack([paths.reads("cat/foo", b"")])
    assert paths.files(packed) == set()
    assert unpack(b"") == ((), ())


def test_what_is_not_utf8_is_a_path_as_well() -> None:
    paths = Paths()
    paths.reads("cat/foo", b"../../cat/b\xe4r/Makefile.common")
    assert list(paths) == ["cat/b\\xe4r/Makefile.common"]


WORDS = st.one_of(
    st.sampled_from(
        [
            "Makefile", "options.mk", "files/x.mk", "../bar/Makefile.common", "/etc/mk.conf",
            "/usr/pkgsrc/mk/a.mk", "/tree/x/y/../../mk/a.mk", "../../../above.mk", "./Makefile",
        ]
    ),
    st.builds("../../mk/{}.mk".format, st.sampled_from("abcdef")),
    st.builds("../../{}/{}/buildlink3.mk".format, st.sampled_from("xyz"), st.sampled_from("xyz")),
)  # fmt: skip
PATHS = st.builds("{}/{}".format, st.sampled_from("xy"), st.sampled_from("xyz"))
VALUES = st.lists(WORDS, max_size=12).map(lambda words: " ".join(words).encode())


def plainly(pkgpath: str, value: bytes) -> set[str]:
    """The files of a value, word by word."""
    found = set()
    for word in value.decode().split():
        path = posixpath.normpath(posixpath.join(f"/tree/{pkgpath}", word))
        found.add(path.removeprefix("/tree/"))
    return found


@given(st.lists(st.tuples(PATHS, st.lists(VALUES, max_size=3)), max_size=12), st.booleans())
def test_who_reads_what(steps: list[tuple[str, list[bytes]]], restart: bool) -> None:
    paths = Paths()
    readers = Readers(paths)
    stored: dict[int, bytes] = {}
    truth: dict[int, set[str]] = {}
    ids: dict[str, int] = {}
    for pkgpath, given_values in steps:
        number = ids.setdefault(pkgpath, len(ids) + 1)
        inside = f"/tree/{pkgpath}/".encode()
        values = [value.replace(b"/tree/x/y/", inside) for value in given_values]
        stored[number] = pack([paths.reads(pkgpath, value, "/tree") for value in values])
        readers.put(number, stored[number])
        truth[number] = set().union(*(plainly(pkgpath, value) for value in values))
        if not values:
            readers.drop(number)
    if restart:
        paths = Paths(list(paths.new_paths), list(paths.new_sets))
        readers = Readers(paths)
        for number, packed in sorted(stored.items(), reverse=True):
            readers.put(number, packed)
    everything = set().union(*truth.values())
    assert set(readers.paths()) == everything
    for path in everything | {"nobody/reads/this"}:
        assert readers.of(path) == {n for n, read in truth.items() if path in read}
        assert readers.read(path) == (path in everything)
    for number, read in truth.items():
        assert readers.files(number) == read
    asked = sorted(everything)[::2]
    found = readers.who(asked)
    assert {n: set(names) for n, names in found.items()} == {
        n: read & set(asked) for n, read in truth.items() if read & set(asked)
    }


def test_few_files_are_named_of_many() -> None:
    paths = Paths()
    readers = Readers(paths)
    names = [f"cat/foo/{n}.mk" for n in range(50)]
    value = " ".join(posixpath.basename(name) for name in names).encode()
    readers.put(7, pack([paths.reads("cat/foo", value)]))
    assert readers.who(names) == {7: tuple(names[:NAMED])}


def test_a_pkgpath_that_has_sets_and_more() -> None:
    paths = Paths()
    first = paths.reads("cat/foo", b"../../mk/a.mk Makefile")
    second = paths.reads("cat/foo", b"../../mk/b.mk Makefile")
    assert first.shared != second.shared
    packed = pack([first, second])
    assert unpack(packed) == (
        (first.shared, second.shared),
        (paths.find("cat/foo/Makefile"),),
    )
    assert packed == struct.pack("<4I", 2, first.shared, second.shared, *first.files)
    assert pack([Reads(first.shared, frozenset())] * 2) == struct.pack("<2I", 1, first.shared)


@pytest.mark.skipif(not (DATA / "pscan.zst").exists(), reason="there is no CLUSTERDEP_TESTDATA")
def test_the_real_scan_word_by_word() -> None:
    """Of the first 2,000 records: every path, and everybody who reads it."""
    with ScanFile(str(DATA / "pscan.zst")) as scan:
        text = b""
        for piece in scan.pieces():
            text += piece
            if len(text) > 11_000_000:
                break
    found = re.findall(rb"^PKG_LOCATION=(.*)\n(?:.*\n)*?SCAN_DEPENDS=(.*)\n", text, re.M)[:2000]
    paths, readers = Paths(), Readers(Paths())
    readers = Readers(paths)
    values: dict[str, list[bytes]] = {}
    for pkgpath, value in found:
        values.setdefault(pkgpath.decode(), []).append(value)
    truth: dict[str, set[int]] = {}
    for number, (pkgpath, several) in enumerate(values.items()):
        readers.put(number, pack([paths.reads(pkgpath, value) for value in several]))
        for word in set(b" ".join(several).decode().split()):
            path = word.replace("/data/jenkins/workspace/pkgsrc-upstream-trunk/", "../../")
            path = posixpath.normpath(posixpath.join("/", pkgpath, path))
            path = path if word.startswith("/") and path == word else path[1:]
            truth.setdefault(path, set()).add(number)
    assert len(values) > 1000
    assert set(readers.paths()) == set(truth)
    assert all(readers.of(path) == numbers for path, numbers in truth.items())


async def reads(dep: Daemon, profile: str = "p") -> dict[str, set[str]]:
    """Who reads what, by the database alone."""
    store = Store(dep.state / "clusterdep.db")
    try:
        row = store.row("profile", (profile,))
        assert row is not None
        index = FileIndex(store)
        readers = await index.readers(row["id"])
        return {
            place["path"]: readers.files(place["id"])
            for place in store.rows("pkgpaths", (row["id"],))
        }
    finally:
        store.close()


async def test_what_is_delivered_is_stored(dep: Daemon) -> None:
    common = {"SCAN_DEPENDS": "Makefile ../../mk/a.mk ../../cat/x/Makefile.common /etc/mk.conf"}
    await dep.load(record("liba-1.0", **common), record("libb-1.0"))
    expected = {
        "cat/liba": {"cat/liba/Makefile", "mk/a.mk", "cat/x/Makefile.common", "/etc/mk.conf"},
        "cat/libb": {"cat/libb/Makefile", "mk/bsd.pkg.mk"},
    }
    assert await reads(dep) == expected
    await dep.stop()
    await dep.start()
    # Another variant, another pkgpath gone, and paths that are known from before.
    again = [
        record("liba-1.0", MULTI_VERSION=f"V={n}", SCAN_DEPENDS=f"Makefile {n}.mk ../../mk/{n}.mk")
        for n in "ab"
    ]
    await dep.load(*again)
    names = {"Makefile", "a.mk", "b.mk"}
    expected = {"cat/liba": {f"cat/liba/{name}" for name in names} | {"mk/a.mk", "mk/b.mk"}}
    assert await reads(dep) == expected


async def test_a_scan_that_fails_says_nothing_of_what_is_read(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"))
    header = pb.PutHeader(profile="p", mode=pb.PutHeader.MODE_MERGE)
    failed = pb.PutScan(pkgpath="cat/liba", error="make: no")
    await put(dep.caller, header, [pb.PutRecordsRequest(scan=failed)], pb.PutEnd())
    assert await reads(dep) == {"cat/liba": {"cat/liba/Makefile", "mk/bsd.pkg.mk"}}


async def test_many_paths_at_once(dep: Daemon) -> None:
    """More than are written in one commit."""
    await dep.load(
        *(
            record(f"lib{n}-1.0", SCAN_DEPENDS=f"Makefile x{n}.mk ../../mk/{n}.mk")
            for n in range(1500)
        )
    )
    found = await reads(dep)
    assert len(found) == 1500
    assert found["cat/lib77"] == {"cat/lib77/Makefile", "cat/lib77/x77.mk", "mk/77.mk"}
