"""CPU of scanning on a host beyond the bare makes, beside its limit.

The same directories of a tree are scanned bare, by a loop of the shell, and as a job with all
that is around it: sandbox, kit, deadlines, results brought back and judged. Both in the same run,
by turns, as the CPU time of all processes. With SCAN_TREE, SCAN_KIT, SCAN_PREFIX and SCAN_PATHS (a
file with a pkgpath in each line) of a real tree, else of the example tree, whose makes are so
short that what counts is the time for each directory.
"""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from clusterbuild.engines import JobSpec, ScanList, wire  # noqa: E402
from clusterbuild.engines.files import digest_of  # noqa: E402
from clusterbuild.engines.host import ON_HOST  # noqa: E402
from clusterbuild.engines.local import clean_prefix_command, local_engine  # noqa: E402
from clusterbuild.kit import given_kit, made_kit  # noqa: E402
from clusterbuild.scan_steps import put_scan  # noqa: E402
from clusterbuild.snapshots import Snapshots  # noqa: E402
from clusterbuild.tree_files import TreeFiles  # noqa: E402
from clusterdep.api import scanned  # noqa: E402

LIMIT = 0.05  # of the bare makes of a real tree
MEAN = 0.26  # seconds of CPU of a bare make, the mean of a real tree (pkgsrc-2016Q3)
ROUNDS = 3
COPIES = 4

BARE = """
cd "$1" || exit 1; tree=$1 make=$2 conf=$3 home=$4; shift 4
for p; do
    cd "$tree/$p" && env -i HOME="$home" LC_ALL=C PATH="$PATH" $conf \
        PBULK_CACHE_DIRECTORY="$home/cache" "$make" pbulk-index >/dev/null 2>&1 </dev/null
done
exit 0
"""


def spent() -> float:
    """CPU seconds of all children that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bare(base: Path, job: JobSpec, paths: list[str]) -> float:
    """CPU seconds of the makes alone, in a clean prefix that is made beforehand."""
    (base / "bare/cache").mkdir(parents=True, exist_ok=True)
    make = f"{job.prefix}/bin/bmake"

    def run(names: list[str]) -> float:
        before = spent()
        inner = ["sh", "-c", 'm=$1; [ -x "$m" ] || m=bmake; c=; [ ! -r "$2" ] || c=MAKECONF=$2;'
                 ' script=$3 t=$4 h=$5; p=${1%/bin/*}; shift 5;'
                 ' PATH=$p/bin:$p/sbin:/usr/bin:/bin:/usr/sbin:/sbin; export PATH;'
                 ' exec sh -c "$script" bare "$t" "$m" "$c" "$h" "$@"',
                 "in", make, f"{job.prefix}/etc/mk.conf", BARE, str(job.tree), str(base / "bare"),
                 *names]  # fmt: skip
        command = clean_prefix_command(
            inner, base=base, kind="mount", prefix=job.prefix, pkgdb=job.pkgdb, kit=job.kit
        )
        subprocess.run(command, check=True)
        return spent() - before

    return run(paths) - run([])


def as_job(base: Path, job: JobSpec) -> float:
    """CPU seconds of the whole job, which is waited for here, and of judging what it found."""
    directory = base / "jobs" / job.attempt
    (directory / "log").mkdir(parents=True)
    assert job.kit is not None
    kit = digest_of(job.kit)
    kept = base / "files" / kit
    kept.parent.mkdir(exist_ok=True)
    if not kept.exists():
        kept.write_bytes(job.kit.read_bytes())
    (directory / "job").write_bytes(wire.job_text(job, kit, tree=str(job.tree), distdir=""))
    before = spent()
    words = ["sh", str(ON_HOST / "supervisor"), str(base), "run", job.attempt]
    subprocess.run(words, check=True)
    return spent() - before


async def judged(base: Path, job: JobSpec, files: TreeFiles) -> tuple[float, int]:
    """CPU seconds of bringing and judging what a job found; how many failed."""
    engine = local_engine(base)
    before, own = spent(), time.process_time()
    failed = after = 0
    while True:
        where, found = await engine.scanned(job.attempt, after)
        if not found:
            break
        for one in found:
            out = scanned.relocated(one.out, where, "/usr/pkgsrc")
            failed += bool(put_scan(one, 0.0).error)
            files.read_by(one.path, out, "/usr/pkgsrc")
        after = found[-1].number
    used = spent() - before + time.process_time() - own
    await engine.clean(job.attempt)
    return used, failed


def paths_of(tree: Path) -> list[str]:
    """The pkgpaths of the example tree, several times."""
    outside = ("broken/", "mk/", "bootstrap/", "distfiles/")
    paths = sorted(str(p.parent.relative_to(tree)) for p in tree.glob("[a-z]*/*/Makefile"))
    return [path for path in paths if not path.startswith(outside)] * COPIES


def prepared(room: Path) -> tuple[JobSpec, list[str], TreeFiles]:
    """A job without its pkgpaths, these, and the files of the tree."""
    tree = Path(os.environ.get("SCAN_TREE", ROOT / "examples/pkgsrc"))
    if "SCAN_KIT" in os.environ:
        kit = given_kit(Path(os.environ["SCAN_KIT"]), os.environ.get("SCAN_PREFIX", ""))
        paths = Path(os.environ["SCAN_PATHS"]).read_text().split()
    else:
        (room / "prefix").mkdir()
        kit = asyncio.run(made_kit(tree, str(room / "prefix"), room / "kit", ""))
        paths = paths_of(tree)
    snapshots = Snapshots(room / "trees")
    snapshot = snapshots.take(tree)
    files = TreeFiles(snapshot.path, snapshots.files(snapshot.digest))
    pkgdb = kit.pkgdb or f"{kit.prefix}/pkgdb"
    job = JobSpec("none", "scan", "", snapshot.path, kit.prefix, pkgdb, kit.path)
    return job, paths, files


def main() -> int:
    """Measures and prints; 1 if the limit is passed."""
    alone: list[float] = []
    jobs: list[float] = []
    judging: list[float] = []
    with tempfile.TemporaryDirectory(prefix="benchscan") as name:
        base = Path(name) / "base"
        base.mkdir()
        job, paths, files = prepared(Path(name))
        for turn in range(ROUNDS):
            todo = ScanList(tuple(paths), f"c{turn}", 100000.0, scanned.MOST_OUTPUT)
            one = replace(job, attempt=f"a{turn}", scan=todo)
            alone.append(bare(base, job, paths))
            jobs.append(as_job(base, one))
            used, failed = asyncio.run(judged(base, one, files))
            judging.append(used)
            print(
                f"scan: {len(paths)} directories, {failed} failed: bare {alone[-1]:.2f} s of CPU, "
                f"as a job {jobs[-1]:.2f} s, brought and judged {used:.2f} s"
            )
    count = len(paths)
    makes, more = min(alone), min(jobs) - min(alone) + min(judging)
    each = more / count
    real = makes / count if "SCAN_KIT" in os.environ else max(MEAN, makes / count)
    share = each / real
    print(f"scan: {1000 * makes / count:.1f} ms for each bare make, and {1000 * each:.1f} ms more")
    print(f"scan: {share:.1%} of a make of {1000 * real:.0f} ms (at most {LIMIT:.0%})")
    return int(share > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
