"""What changed files lead to, against the plainest way of finding it."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterdep.core.changes import Effect, Kind, Known, effect, hot, is_foreign, subdirs, why
from clusterdep.core.files import Paths, Readers, pack

#: SCAN_DEPENDS of a small tree.
READS = {
    "cat/liba": "Makefile ../../mk/bsd.pkg.mk /etc/mk.conf",
    "cat/libb": "Makefile options.mk ../../mk/bsd.options.mk ../../cat/liba/buildlink3.mk "
    "../../mk/bsd.pkg.mk /etc/mk.conf",
    "cat/prog": "Makefile ../../cat/libb/buildlink3.mk ../../mk/pkg-build-options.mk "
    "../../mk/bsd.pkg.mk /etc/mk.conf",
    "net/tool": "Makefile ../../net/tool-common/Makefile.common ../../mk/java-vm.mk "
    "../../mk/bsd.pkg.mk /etc/mk.conf",
}
TEXT = {
    "cat/libb/buildlink3.mk": 'pkgbase:= libb\n.include "../../mk/pkg-build-options.mk"\n',
    "mk/java-vm.mk": "_DIR= ../../lang/jdk\n.if exists(${_DIR}/buildlink3.mk)\n",
    "mk/bsd.pkg.mk": '.sinclude "platform.mk"\n',
    "Makefile": "SUBDIR+=\tcat\nSUBDIR+=\tnet\n",
    "cat/Makefile": "SUBDIR+= liba\nSUBDIR+= libb # two\nSUBDIR+=prog\n",
    "net/Makefile": "SUBDIR+= tool\nSUBDIR+= ${SITE}\n",
}


def known(
    reads: Mapping[str, str] = READS, failed: Mapping[str, str] | None = None, **text: str
) -> Known:
    paths = Paths()
    readers = Readers(paths)
    ids = {}
    for number, (pkgpath, value) in enumerate(reads.items()):
        ids[pkgpath] = number
        if value:
            readers.put(number, pack([paths.reads(pkgpath, value.encode())]))
    texts = TEXT | {name.replace("__", "/"): value for name, value in text.items()}
    names = {number: pkgpath for pkgpath, number in ids.items()}
    return Known(ids, failed or {}, readers, lambda path: texts.get(path, ""), names)


def one(path: str, kind: Kind = Kind.CHANGED, where: Known | None = None) -> Effect:
    return effect({path: kind}, where or known())


@pytest.mark.parametrize(
    ("path", "kind", "pkgpaths"),
    [
        ("cat/liba/Makefile", Kind.CHANGED, "cat/liba"),
        ("cat/liba/Makefile", Kind.GONE, "cat/liba"),
        ("cat/liba/options.mk", Kind.NEW, "cat/liba"),
        ("cat/liba/hacks.mk", Kind.NEW, "cat/liba"),
        ("cat/liba/patches/patch-aa", Kind.CHANGED, "cat/liba"),
        ("cat/liba/distinfo", Kind.GONE, "cat/liba"),
        ("cat/liba/PLIST", Kind.NEW, "cat/liba"),
        ("cat/liba/buildlink3.mk", Kind.CHANGED, "cat/liba cat/libb"),
        ("cat/liba/builtin.mk", Kind.NEW, "cat/liba cat/libb"),
        ("cat/libb/options.mk", Kind.CHANGED, "cat/libb cat/prog"),
        ("cat/libb/Makefile", Kind.CHANGED, "cat/libb"),
        ("net/tool-common/Makefile.common", Kind.CHANGED, "net/tool"),
        ("net/tool-common/hacks.mk", Kind.NEW, "net/tool"),
        ("mk/bsd.pkg.mk", Kind.CHANGED, "cat/liba cat/libb cat/prog net/tool"),
        ("mk/java-vm.mk", Kind.GONE, "net/tool"),
        ("mk/platform.mk", Kind.NEW, "cat/liba cat/libb cat/prog net/tool"),
        ("mk/other.mk", Kind.NEW, ""),
        ("lang/jdk/buildlink3.mk", Kind.NEW, "net/tool"),
        ("lang/other/buildlink3.mk", Kind.NEW, ""),
        ("cat/Makefile.inc", Kind.NEW, "cat/liba cat/libb cat/prog"),
        ("/etc/mk.conf", Kind.CHANGED, "cat/liba cat/libb cat/prog net/tool"),
        ("/etc/other.conf", Kind.CHANGED, ""),
        ("doc/CHANGES-2026", Kind.CHANGED, ""),
        ("cat/liba/CVS/Entries", Kind.CHANGED, ""),
        ("cat/liba/work/.extract_done", Kind.NEW, ""),
        ("cat/liba/Makefile.orig", Kind.NEW, ""),
    ],
)
def test_one_file(path: str, kind: Kind, pkgpaths: str) -> None:
    found = one(path, kind)
    assert set(found.rescans) == set(pkgpaths.split())
    assert (path in found.unread) == (not pkgpaths and not is_foreign(path))


def test_options_in_the_makefile_itself() -> None:
    where = known(READS | {"cat/libb": "Makefile ../../mk/bsd.options.mk"})
    assert set(one("cat/libb/Makefile", where=where).rescans) == {"cat/libb", "cat/prog"}
    silent = known(cat__libb__buildlink3=" ")
    assert silent.text("cat/libb/buildlink3.mk")
    nobody_asks = known(**{"cat__libb__buildlink3.mk": "nothing"})
    assert set(one("cat/libb/options.mk", where=nobody_asks).rescans) == {"cat/libb"}


def test_reasons() -> None:
    both = effect({"cat/liba/Makefile": Kind.CHANGED, "mk/bsd.pkg.mk": Kind.CHANGED}, known())
    assert why(both.rescans["net/tool"]) == "reads mk/bsd.pkg.mk"
    assert why(both.rescans["cat/liba"]) == "reads cat/liba/Makefile and 1 more"
    new = one("cat/liba/options.mk", Kind.NEW)
    assert why(new.rescans["cat/liba"]) == "is new in its directory: cat/liba/options.mk"
    asks = one("cat/libb/options.mk")
    assert why(asks.rescans["cat/prog"]) == "asks for options of cat/libb/options.mk"


def test_scans_that_failed() -> None:
    reads = READS | {"cat/bad": "", "cat/worse": ""}
    said = "make: could not find ../../net/gone/Makefile.common"
    where = known(reads, {"cat/bad": said, "cat/worse": "it hangs"})
    assert set(one("net/gone/Makefile.common", Kind.NEW, where).rescans) == {"cat/bad"}
    assert set(one("mk/other.mk", Kind.NEW, where).rescans) == {"cat/bad", "cat/worse"}
    assert set(one("cat/worse/Makefile", where=where).rescans) == {"cat/worse"}


def test_lists_of_packages() -> None:
    found = one("cat/Makefile", where=known(cat__Makefile="SUBDIR+= libb\nSUBDIR+= newone\n"))
    assert (found.enumerate, found.new) == ("cat/Makefile", ["cat/newone"])
    assert found.gone == ["cat/liba", "cat/prog"]
    found = effect(
        {"Makefile": Kind.CHANGED},
        known(Makefile="SUBDIR+=\tcat new\n", new__Makefile="SUBDIR+= thing\n"),
    )
    assert (found.new, found.gone) == (["new/thing"], ["net/tool"])
    assert one("/etc/mk.conf").enumerate == "/etc/mk.conf"
    assert not one("cat/liba/Makefile").enumerate
    elsewhere = known(net__Makefile='.include "list.mk"\n')
    assert one("net/Makefile", where=elsewhere).gone == []


def test_what_is_gone_is_not_scanned() -> None:
    where = known(cat__Makefile="SUBDIR+= libb\nSUBDIR+= prog\n")
    found = effect({"cat/Makefile": Kind.CHANGED, "cat/liba/Makefile": Kind.GONE}, where)
    assert found.gone == ["cat/liba"]
    assert found.rescans == {}


def test_lists_without_make() -> None:
    assert subdirs("SUBDIR+=\ta\nSUBDIR= b c # d\n#SUBDIR+= e\nSUBDIR+=${F}\n") == ["a", "b", "c"]


def test_hot_files() -> None:
    readers = known().readers
    assert hot(["mk/bsd.pkg.mk", "cat/liba/Makefile", "no/such"], readers, 3) == {"mk/bsd.pkg.mk"}
    assert hot(["mk/bsd.pkg.mk"], readers, 4) == set()


NAMES = st.sampled_from(["liba", "libb", "prog", "tool"])
FILES = st.one_of(
    st.builds("cat/{}/{}".format, NAMES, st.sampled_from(["Makefile", "x.mk", "distinfo"])),
    st.builds("mk/{}.mk".format, st.sampled_from("abc")),
    st.just("/etc/mk.conf"),
)


@given(
    st.dictionaries(NAMES.map("cat/{}".format), st.lists(FILES, max_size=8), max_size=4),
    st.dictionaries(FILES, st.sampled_from([Kind.CHANGED, Kind.GONE]), max_size=8),
)
def test_whoever_reads_it_or_has_it(reads: dict[str, list[str]], changes: dict[str, Kind]) -> None:
    """Whatever rule adds something: readers and owners are always among them, and nobody else."""
    values = {
        pkgpath: " ".join(f if f.startswith("/") else f"../../{f}" for f in files)
        for pkgpath, files in reads.items()
    }
    found = effect(changes, known(values))
    truth = {
        pkgpath
        for pkgpath, files in reads.items()
        if any(file in files or posixpath.dirname(file) == pkgpath for file in changes)
    }
    assert set(found.rescans) == truth
    for leads in found.rescans.values():
        assert all(file in changes for files in leads.values() for file in files)
    for file in changes:
        nobody = not any(
            file in files or posixpath.dirname(file) == pkgpath for pkgpath, files in reads.items()
        )
        outside = file == "/etc/mk.conf"  # it leads to an enumeration at least
        assert (file in found.unread) == (nobody and not outside)
