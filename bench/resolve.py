"""CPU and memory of `clusterdep resolve` on the scan of a whole tree, beside their limits."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CLUSTERDEP_TESTDATA", ROOT / "../shared/data"))
CPU_LIMIT = 1.9  # seconds, user and system
MEMORY_LIMIT = 100.0  # MiB, at its highest
ROUNDS = 5
#: ru_maxrss is in KiB, but on macOS in bytes.
UNIT = 1 << 20 if sys.platform == "darwin" else 1 << 10


def measure(scan: Path) -> tuple[float, float]:
    """(CPU seconds, peak MiB) of one run; raises SystemExit if it fails."""
    command = [
        sys.executable,
        "-m",
        "clusterdep",
        "resolve",
        "--pscan",
        str(scan),
        "-o",
        os.devnull,
    ]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} failed with exit code {child.returncode}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / UNIT


def main() -> int:
    """Measures and prints; 1 if a limit is passed."""
    packed = DATA / "pscan.zst"
    if not packed.exists():
        print(f"resolve: not measured, there is no {packed} (see CLUSTERDEP_TESTDATA)")
        return 0
    sys.path.insert(0, str(ROOT))
    from clusterdep.scanfile import ScanFile  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as directory, ScanFile(str(packed)) as scan:
        plain = Path(directory) / "pscan"
        with plain.open("wb") as file:
            file.writelines(scan.pieces())
        runs = [measure(plain) for _ in range(ROUNDS)]
    cpu = min(run[0] for run in runs)
    memory = max(run[1] for run in runs)
    print(f"resolve: {cpu:.2f} s of CPU, the best of {ROUNDS} (at most {CPU_LIMIT} s)")
    print(f"resolve: {memory:.0f} MiB of memory at its peak (at most {MEMORY_LIMIT:.0f} MiB)")
    return int(cpu > CPU_LIMIT or memory > MEMORY_LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
