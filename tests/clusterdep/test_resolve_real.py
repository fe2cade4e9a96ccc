"""The scan of a whole tree: resolved byte for byte as it is known to resolve."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dewey_oracle
import pytest

from clusterdep.core import scanindex
from clusterdep.core.buildable import Buildable, alone, classify
from clusterdep.core.resolve import Package, Resolver, Rule
from clusterdep.scanfile import ScanFile

DATA = Path(os.environ.get("CLUSTERDEP_TESTDATA", Path(__file__).parents[2] / "../shared/data"))

UNRESOLVED = {
    "py311-buildbot-badges-2.6.0nb1 (devel/py-buildbot-badges)": "py311-buildbot-[0-9]*",
    "py311-buildbot-waterfall-view-2.6.0nb1 (devel/py-buildbot-waterfall-view)": (
        "py311-buildbot-[0-9]*"
    ),
    "py311-e3-core-22.10.0nb3 (devel/py-e3-core)": "py311-stevedore>=1.20.0",
    "py312-libagent-0.15.0 (security/py-libagent)": "py312-daemon>=2.3.0",
    "py313-libagent-0.15.0 (security/py-libagent)": "py313-daemon>=2.3.0",
    "py314-libagent-0.15.0 (security/py-libagent)": "py314-daemon>=2.3.0",
}


@pytest.fixture(scope="module")
def data() -> Path:
    if not (DATA / "pscan.zst").exists():
        assert "CI" not in os.environ, f"{DATA} is not there: set CLUSTERDEP_TESTDATA"
        pytest.skip(f"there is no pscan.zst in {DATA} (see CLUSTERDEP_TESTDATA)")
    return DATA


def digest(pieces: Iterator[bytes]) -> tuple[str, int]:
    total, size = hashlib.sha256(), 0
    for piece in pieces:
        total.update(piece)
        size += len(piece)
    return total.hexdigest(), size


def test_the_whole_scan_resolves_byte_for_byte(data: Path, tmp_path: Path) -> None:
    found = tmp_path / "presolve"
    words = ["resolve", "--summary", "--pscan", str(data / "pscan.zst"), "-o", str(found)]
    done = subprocess.run(
        [sys.executable, "-m", "clusterdep", *words], capture_output=True, check=True, text=True
    )
    with ScanFile(str(found)) as ours, ScanFile(str(data / "presolve.zst")) as known:
        assert digest(ours.pieces()) == digest(known.pieces())
    *problems, counts = done.stderr.splitlines()
    assert sorted(problems) == [
        f"clusterdep: {package}: no package matches {pattern}"
        for package, pattern in UNRESOLVED.items()
    ]
    assert counts == (
        "clusterdep: 29022 packages: 27370 buildable, 1148 skipped, 175 prefailed, 6 unresolved, "
        "277 indirectly skipped, 40 indirectly prefailed, 6 behind unresolved"
    )


@pytest.fixture(scope="module")
def records(data: Path) -> list[scanindex.Record]:
    with ScanFile(str(data / "pscan.zst")) as scan:
        found = []
        for text in scanindex.split(scan.pieces()):
            record = scanindex.read(text) if isinstance(text, scanindex.Text) else text
            assert isinstance(record, scanindex.Record), record
            assert record.raw == text.raw
            slim = scanindex.read(scanindex.Text(text.number, text.start, record.brief))
            assert isinstance(slim, scanindex.Record)
            found.append(slim)
    return found


def packages(records: list[scanindex.Record]) -> list[Package]:
    return [Package(at, (at, 0), one.pkgname, one.depends) for at, one in enumerate(records)]


def test_every_record_is_read(records: list[scanindex.Record]) -> None:
    assert len(records) == 29022
    assert len({one.pkgpath for one in records}) == 20206
    assert sum(len(one.depends) for one in records) == 259113
    assert sum(bool(one.variant) for one in records) == 13378
    assert sum(bool(one.skip_reason) for one in records) == 1148
    assert sum(bool(one.fail_reason) for one in records) == 203
    assert sum(bool(one.skip_reason and one.fail_reason) for one in records) == 28
    assert sum(bool(one.no_bin_on_ftp) for one in records) == 202
    assert sum(bool(one.restricted) for one in records) == 239
    assert sum(one.bootstrap for one in records) == 11
    assert Counter(one.use_destdir for one in records) == {b"user-destdir": 28989, b"destdir": 33}
    assert Counter(one.usergroup_phase for one in records)[b"configure"] == 2
    assert Counter(one.usergroup_phase for one in records)[b"pre-install"] == 8
    variables = Counter(word.split(b"=")[0] for one in records for word in one.make_variables)
    assert variables[b"PYTHON_VERSION_REQD"] == 9159
    assert variables[b"MYSQL_VERSION_REQD"] == 89


def test_what_could_be_built(records: list[scanindex.Record]) -> None:
    resolver = Resolver(packages(records))
    resolutions = [resolver.resolution(at) for at in range(len(records))]
    own = [
        alone(bool(one.skip_reason), bool(one.fail_reason), bool(what and what.problems))
        for one, what in zip(records, resolutions, strict=True)
    ]
    found = classify(own, [what.requires if what else () for what in resolutions])
    assert Counter(found) == {
        Buildable.YES: 27370,
        Buildable.SKIPPED: 1148,
        Buildable.PREFAILED: 175,
        Buildable.UNRESOLVED: 6,
        Buildable.BEHIND_SKIPPED: 277,
        Buildable.BEHIND_PREFAILED: 40,
        Buildable.BEHIND_UNRESOLVED: 6,
    }


def test_candidates_are_those_the_oracle_finds(records: list[scanindex.Record]) -> None:
    """A sample of the patterns, each against every name of the tree."""
    resolver = Resolver(packages(records))
    patterns = sorted({token.partition(b":")[0] for one in records for token in one.depends})
    assert len(patterns) == 27595
    braces = [pattern for pattern in patterns if b"{" in pattern]
    names = [one.pkgname for one in records]
    asker = len(records)
    for pattern in [*patterns[::700], *braces[::20]]:
        resolver.apply([Package(asker, (asker, 0), b"asker-1", (pattern + b":../../x/y",))])
        start = pattern[:2] if pattern[:2].isalnum() else b""
        found = [n for n in names if n.startswith(start) and dewey_oracle.match(pattern, n)]
        best = found[:1]
        for name in found:
            version, known = name.rpartition(b"-")[2], best[0].rpartition(b"-")[2]
            sign = dewey_oracle.compare(version, known)
            if sign > 0 or (sign == 0 and name > best[0]):
                best = [name]
        assert resolver.depends(asker) == best


def test_changes_in_a_whole_tree_come_to_a_full_resolve(records: list[scanindex.Record]) -> None:
    before, after = packages(records), packages(records)
    resolver = Resolver(before)
    hub = next(one.key for one in before if one.pkgname.startswith(b"perl-5"))
    gone = set(range(7, len(before), 997)) - {hub}
    after[hub] = Package(hub, (hub, 0), b"perl-6.0", before[hub].depends)
    put = [after[hub]]
    for key in set(range(11, len(before), 499)) - gone - {hub}:
        after[key] = Package(key, (key, 0), after[key].pkgname + b"nb99", after[key].depends[1:])
        put.append(after[key])
    said = resolver.apply(put, gone)
    full = Resolver([one for one in after if one.key not in gone])
    was = Resolver(before)
    for one in before:
        assert resolver.resolution(one.key) == full.resolution(one.key)
        changed = was.resolution(one.key) != full.resolution(one.key)
        assert changed == (one.key in said), one.pkgname


def test_the_other_rule_prefers_what_can_be_built(records: list[scanindex.Record]) -> None:
    scan = [
        one._replace(
            pkgpath=record.pkgpath, buildable=not (record.skip_reason or record.fail_reason)
        )
        for one, record in zip(packages(records), records, strict=True)
    ]
    resolver = Resolver(scan, Rule.PREFER_BUILDABLE)
    differences = dict(resolver.differences)
    assert len(differences) == 48
    names = {one.key: one.pkgname for one in scan}
    by_name = {one.pkgname: one.key for one in scan}
    said = {
        (d.pattern, names[d.chosen], names[d.pbulk])
        for d in differences[by_name[b"ruby34-execjs-2.10.0nb1"]]
    }
    assert said == {
        (b"nodejs>=10", b"nodejs-20.19.6", b"nodejs-25.2.1"),
        (b"nodejs>=20.18.3nb1", b"nodejs-20.19.6", b"nodejs-25.2.1"),
    }
    # The one at the location that is named can be built no more, and then again.
    chosen = scan[by_name[b"nodejs-20.19.6"]]
    touched = resolver.apply([chosen._replace(buildable=False)])
    assert by_name[b"ruby34-execjs-2.10.0nb1"] in touched
    assert len(touched) < 100
    assert resolver.apply([chosen]) == touched
    assert resolver.differences == differences
    usual = Resolver(scan)
    assert not usual.differences
    assert {
        one.key for one in scan if usual.resolution(one.key) != resolver.resolution(one.key)
    } == set(differences)
