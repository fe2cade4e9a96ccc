"""Input keys: the digest of what determines an artifact."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

#: Fields of a record that do not change what is built.
VOLATILE = ("SCAN_DEPENDS", "MAINTAINER", "PBULK_WEIGHT", "DEPENDS")
_VOLATILE = re.compile(rf"^(?:{'|'.join(VOLATILE)})=.*\n?".encode(), re.MULTILINE)
#: Digits that are kept of a file's digest, to see that it is another.
_KEPT_DIGITS = 16


def record_digest(text: bytes) -> bytes:
    """Digest (16 bytes) of a scan record without its volatile lines.

    Runs of blanks count as one: make prints them as its variables happen to be built.
    """
    lasting = b" ".join(_VOLATILE.sub(b"", text).split())
    return hashlib.blake2b(lasting, digest_size=16).digest()


def input_key(
    record: bytes, files: str, toolchain: str, requirements: Iterable[tuple[str, str]]
) -> str:
    """The input key (32 hex digits) of a package.

    `record` is its record_digest; `files` the digest of the files its build reads from
    the tree; `toolchain` the id of the profile's compiler and base system;
    `requirements` are (pkgname, content digest) of the artifacts it is built with.
    """
    digest = hashlib.blake2b(record, digest_size=16)
    for text in (files, toolchain):
        digest.update(text.encode() + b"\0")
    for pkgname, content in sorted(requirements):
        digest.update(f"{pkgname} {content}\n".encode())
    return digest.hexdigest()


def files_digest(files: Mapping[str, str]) -> str:
    """The digest (hex of SHA-256) of the files that a build reads from the tree.

    `files` has for each path, relative to the tree, the hex SHA-256 of its contents, or in
    words what it is instead of a file. Of the lines "DIGEST PATH", sorted by path.
    """
    lines = (f"{digest} {path}\n" for path, digest in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def write_listing(files: Mapping[str, str]) -> bytes:
    """The listing of such files that is kept, to name one day what has changed.

    It has a line for each file: the first 16 digits of its digest, or what stands for it,
    then a tab and its path.
    """
    lines = (f"{digest[:_KEPT_DIGITS]}\t{path}\n" for path, digest in sorted(files.items()))
    return "".join(lines).encode(errors="surrogateescape")


def read_listing(listing: bytes) -> dict[str, str]:
    """A listing that was kept, as (shortened) digests by path."""
    lines = listing.decode(errors="surrogateescape").split("\n")
    return {path: digest for digest, _, path in (line.partition("\t") for line in lines) if path}
