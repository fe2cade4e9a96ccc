"""Input keys: the digest of what determines an artifact."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

#: Lines of a record that do not change what is built.
_VOLATILE = re.compile(rb"^(?:SCAN_DEPENDS|MAINTAINER|PBULK_WEIGHT|DEPENDS)=.*\n?", re.MULTILINE)


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
