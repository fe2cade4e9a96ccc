"""Why an artifact is stale: every thing that can differ, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clusterdep.core import inputs
from clusterdep.core.stale import Ingredients, reasons

RECORD = (
    b"PKGNAME=foo-1.0\nPKG_LOCATION=devel/foo\n"
    b"ALL_DEPENDS= liba>=1:../../x/a  libb-[0-9]*:../../x/b\n"
    b"MAINTAINER=one@example.org\nUSE_DESTDIR=user-destdir\nRESTRICTED=\n"
)
FILES = {f"devel/foo/{name}": name for name in ("Makefile", "distinfo", "PLIST", "DESCR")}
WAS = Ingredients(RECORD, "d1", FILES, "gcc-12", (("liba-1.0", "c1"), ("libb-2.0", "c2")))


def record(old: bytes, new: bytes) -> Ingredients:
    assert old in RECORD
    return replace(WAS, record=RECORD.replace(old, new))


def files(**changed: str | None) -> Ingredients:
    now = FILES | {f"devel/foo/{name.replace('_', '-')}": d for name, d in changed.items() if d}
    gone = {f"devel/foo/{name}" for name, digest in changed.items() if digest is None}
    now = {path: digest for path, digest in now.items() if path not in gone}
    return replace(WAS, inputs_digest="d2", files=now)


def requirements(*now: tuple[str, str]) -> Ingredients:
    return replace(WAS, requirements=now)


CASES: list[tuple[Ingredients, list[str]]] = [
    (WAS, []),
    (record(b"foo-1.0", b"foo-1.1"), ["it is foo-1.1 now, not foo-1.0"]),
    (record(b"one@", b"other@"), []),
    (record(b" liba>=1:../../x/a  lib", b"   liba>=1:../../x/a lib"), []),
    (record(b"liba>=1:../../x/a", b"liba>=2:../../x/a"),
     ["it asks for liba>=2 now", "it does not ask for liba>=1 any more"]),
    (record(b"x/a", b"y/a"), ["it asks for the same in another order, or in other places"]),
    (record(b"=user-destdir", b"=destdir"), ["USE_DESTDIR is 'destdir' now, not 'user-destdir'"]),
    (record(b"RESTRICTED=", b"RESTRICTED=" + b"no " * 30),
     ["RESTRICTED is 'no no no no no no no no no no no no no no no no no no no no …' now, "
      "not empty"]),
    (record(b"RESTRICTED=\n", b"RESTRICTED=\nPKG_OPTIONS=ssl x11\n"),
     ["options ssl, x11 are on now"]),
    (files(Makefile="other"), ["file devel/foo/Makefile changed"]),
    (files(Makefile="other", distinfo="other", PLIST=None, hacks_mk="new"),
     ["files devel/foo/Makefile, devel/foo/distinfo changed", "file devel/foo/hacks-mk is new",
      "file devel/foo/PLIST is gone"]),
    (files(**{f"patch{number}": "new" for number in range(8)}, DESCR=None),
     ["files devel/foo/patch0, devel/foo/patch1, devel/foo/patch2, devel/foo/patch3, "
      "devel/foo/patch4 and 3 more are new", "1 more file is gone"]),
    (files(), ["files that its build reads from the tree are others"]),
    (replace(WAS, inputs_digest="d2", files=None),
     ["files that its build reads from the tree are others, and which ones is not known"]),
    (replace(WAS, toolchain="gcc-13"), ["the toolchain is 'gcc-13' now, not 'gcc-12'"]),
    (replace(WAS, toolchain=""), ["the toolchain is empty now, not 'gcc-12'"]),
    (requirements(("liba-1.0", "c9"), ("libb-2.0", "c2")),
     ["requirement liba-1.0 was built again, and what is in it is not the same"]),
    (requirements(("liba-1.0", ""), ("libb-2.0", "c2")), []),
    (requirements(("liba-1.0", "c1"), ("libb-2.0", "")), []),
    (requirements(("liba-1.1", ""), ("libb-2.0", "c2")), ["requirement liba-1.0 is liba-1.1 now"]),
    (requirements(("liba-1.0", "c1"), ("libc-1", "c")),
     ["it does not require libb-2.0 any more", "it requires libc-1 now"]),
]  # fmt: skip


@pytest.mark.parametrize(("now", "said"), CASES)
def test_each_difference_is_named(now: Ingredients, said: list[str]) -> None:
    assert reasons(WAS, now) == said


def test_options_go_on_and_off() -> None:
    was = replace(WAS, record=RECORD + b"PKG_OPTIONS=ssl x11 doc\n")
    now = replace(WAS, record=RECORD + b"PKG_OPTIONS=doc ssl wayland\n")
    assert reasons(was, now) == ["option wayland is on now", "option x11 is off now"]


def test_a_requirement_of_unknown_content() -> None:
    was = replace(WAS, requirements=[("liba-1.0", ""), ("libb-2.0", "c2")])
    assert reasons(was, WAS) == ["which liba-1.0 it was built with is not known"]
    assert reasons(was, was) == []


def test_what_is_not_known_is_not_said() -> None:
    unknown = Ingredients(b"", "", None, "", ())
    assert reasons(unknown, replace(unknown, record=RECORD)) == []


def test_what_changes_the_record_digest_has_a_sentence() -> None:
    """Whatever field differs: if the digest does, something is said, and only then."""
    for line in RECORD.splitlines():
        key, _, value = line.partition(b"=")
        now = RECORD.replace(line, key + b"=" + value + b"x")
        differs = inputs.record_digest(now) != inputs.record_digest(RECORD)
        assert bool(reasons(WAS, replace(WAS, record=now))) == differs, key


def test_a_listing_is_kept_and_read_again() -> None:
    digests = {"devel/foo/Makefile": "ab" * 32, "devel/foo/a b": "-> ../x", "x/\udce9": "cd" * 32}
    kept = inputs.read_listing(inputs.write_listing(digests))
    assert kept == {
        "devel/foo/Makefile": "ab" * 8, "devel/foo/a b": "-> ../x", "x/\udce9": "cd" * 8,
    }  # fmt: skip
    assert inputs.files_digest(digests) != inputs.files_digest({**digests, "x/y": "no file"})
