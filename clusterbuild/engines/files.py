"""Files on the dispatcher's side: packing the scripts, and settling what was fetched."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clusterbuild.engines import Kind
from clusterbuild.engines.runner import RunnerError


def pack(directory: Path) -> tuple[str, bytes]:
    """The files of `directory` as a tar file, and the version that names this content."""
    digest = hashlib.sha256()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(directory.iterdir()):
            if not path.is_file() or path.suffix in (".py", ".pyc"):
                continue
            data = path.read_bytes()
            member = tarfile.TarInfo(path.name)
            member.size = len(data)
            member.mode = 0o755
            tar.addfile(member, io.BytesIO(data))
            digest.update(f"{path.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16], packed.getvalue()


def digest_of(path: Path) -> str:
    """SHA256 of a file, hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def settle(part: Path, target: Path, size: int, sha256: str) -> None:
    """Makes `part` the file `target`, on the disk, if it is what it should be.

    Raises RunnerError (BROKEN) if it is not, OSError if the disk is at fault.
    """
    with part.open("rb") as file, ThreadPoolExecutor(1) as aside:
        synced = aside.submit(os.fsync, file.fileno())  # the disk has work while we compute
        found = hashlib.file_digest(file, "sha256").hexdigest()
        length = os.fstat(file.fileno()).st_size
        synced.result()
    if (length, found) != (size, sha256):
        why = f"it is not whole: {length} bytes with SHA256 {found}, not {size} with {sha256}"
        raise RunnerError(Kind.BROKEN, why)
    part.replace(target)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def local_trouble(problem: OSError) -> RunnerError:
    """An error of the dispatcher's own disk."""
    kind = Kind.FULL if problem.errno in (errno.ENOSPC, errno.EDQUOT) else Kind.REFUSED
    return RunnerError(kind, f"on this side: {problem}")
