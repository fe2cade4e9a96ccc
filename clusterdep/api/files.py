"""Files that settings and options name: read with a fault that says which, watched for changes."""

from __future__ import annotations

from pathlib import Path

from clusterdep.api.errors import Fault, Kind

Signature = tuple[tuple[int, int, int], ...]


def read_file(path: Path, what: str) -> bytes:
    """The content of a file; raises Fault (CONFIG) that calls it `what`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise Fault(Kind.CONFIG, f"{what} {path} cannot be read: {error.strerror}") from error


def read_secret(path: Path, what: str) -> bytes:
    """The same of a file that not everybody may read. Raises Fault (CONFIG)."""
    content = read_file(path, what)
    if path.stat().st_mode & 0o007:
        remedy = f"make another one, and 'chmod 600 {path}'"
        raise Fault(Kind.CONFIG, f"{what} {path} is secret, and open to everybody", remedy)
    return content


def signature(*paths: Path | None) -> Signature:
    """What changes when one of the files does; of one that is not there, zeros."""
    found = []
    for path in paths:
        try:
            status = path.stat() if path else None
        except OSError:
            status = None
        found.append((status.st_mtime_ns, status.st_size, status.st_ino) if status else (0, 0, 0))
    return tuple(found)
