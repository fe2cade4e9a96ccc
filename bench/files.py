"""SCAN_DEPENDS of a whole scan turned round, and how long it takes from files to pkgpaths."""

from __future__ import annotations

import os
import re
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CLUSTERDEP_TESTDATA", ROOT / "../shared/data"))
sys.path.insert(0, str(ROOT))

from clusterdep.core.changes import Kind, Known, effect  # noqa: E402
from clusterdep.core.files import Paths, Readers, pack  # noqa: E402
from clusterdep.scanfile import ScanFile  # noqa: E402

#: Limits: CPU seconds for all values, for turning them round, and for ten files of a commit.
READ_LIMIT, TURN_LIMIT, FILES_LIMIT = 1.0, 0.6, 0.005
MEMORY_LIMIT = 16.0  # MiB
_VALUE = re.compile(rb"^PKG_LOCATION=(.*)\n(?:(?!SCAN_DEPENDS=).*\n)*SCAN_DEPENDS=(.*)\n", re.M)
COMMITS = 200


def values(packed: Path) -> dict[str, list[bytes]]:
    """The values of SCAN_DEPENDS by pkgpath."""
    found: dict[str, list[bytes]] = {}
    with ScanFile(str(packed)) as scan:
        for pkgpath, value in _VALUE.findall(b"".join(scan.pieces())):
            found.setdefault(pkgpath.decode(), []).append(value)
    return found


def measured(work: Callable[[], object]) -> float:
    """CPU seconds that it takes."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def read(scan: dict[str, list[bytes]]) -> tuple[Paths, list[bytes]]:
    """All values as numbers, packed for each pkgpath."""
    paths = Paths()
    return paths, [
        pack([paths.reads(pkgpath, value) for value in several])
        for pkgpath, several in scan.items()
    ]


def turned(paths: Paths, packed: Sequence[bytes]) -> Readers:
    """Who reads what."""
    readers = Readers(paths)
    for number, one in enumerate(packed):
        readers.put(number, one)
    return readers


def commits(scan: dict[str, list[bytes]]) -> list[list[str]]:
    """Commits of ten files each, as they are: a Makefile, distinfo, PLIST of some packages, and
    now and then a Makefile.common or buildlink3.mk."""
    names = ["Makefile", "distinfo", "PLIST", "Makefile.common", "buildlink3.mk"]
    pkgpaths = list(scan)
    return [
        [f"{pkgpaths[(number * 97 + k * 13) % len(pkgpaths)]}/{names[k % 5]}" for k in range(10)]
        for number in range(COMMITS)
    ]


def main() -> int:
    """Measures and prints; 1 if a limit is passed."""
    packed_scan = DATA / "pscan.zst"
    if not packed_scan.exists():
        print(f"files: not measured, there is no {packed_scan} (see CLUSTERDEP_TESTDATA)")
        return 0
    scan = values(packed_scan)
    reading = min(measured(lambda: read(scan)) for _ in range(3))
    paths, packed = read(scan)
    turning = min(measured(lambda: turned(paths, packed)) for _ in range(3))
    tracemalloc.start()
    readers = turned(paths, packed)
    memory = tracemalloc.get_traced_memory()[0] / (1 << 20)
    tracemalloc.stop()
    ids = {pkgpath: number for number, pkgpath in enumerate(scan)}
    known = Known(ids, {}, readers, lambda path: "", dict(enumerate(scan)))
    times = [
        measured(lambda: effect(dict.fromkeys(files, Kind.CHANGED), known))  # noqa: B023
        for files in commits(scan)
    ]
    most = sorted(readers.paths(), key=readers.count)[-10:]
    hottest = min(measured(lambda: readers.who(most)) for _ in range(5))
    commit = statistics.median(times)
    print(f"files: {len(paths)} paths, {sum(map(len, packed)) >> 10} KiB packed")
    print(f"files: {reading:.2f} s of CPU to read all values (at most {READ_LIMIT} s)")
    print(f"files: {turning:.2f} s of CPU to turn them round (at most {TURN_LIMIT} s)")
    print(f"files: {memory:.0f} MiB of memory for that (at most {MEMORY_LIMIT:.0f} MiB)")
    print(
        f"files: {commit * 1e3:.1f} ms from ten files of a commit to what is scanned, the median "
        f"of {COMMITS} (at most {FILES_LIMIT * 1e3:.0f} ms); longest {max(times) * 1e3:.1f} ms"
    )
    print(f"files: {hottest * 1e3:.1f} ms for the ten files that most read, {len(ids)} pkgpaths")
    return int(
        reading > READ_LIMIT
        or turning > TURN_LIMIT
        or commit > FILES_LIMIT
        or memory > MEMORY_LIMIT
    )


if __name__ == "__main__":
    raise SystemExit(main())
