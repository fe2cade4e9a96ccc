"""What artifacts were made of: remembered when they are granted, compared when they are stale."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import zstandard

from clusterdep.catalog import Catalog
from clusterdep.core import inputs, stale
from clusterdep.core.graph import State
from clusterdep.facts import Artifact, Pkgpath
from clusterdep.store.database import Row, Store

_PACK = zstandard.ZstdCompressor()
_UNPACK = zstandard.ZstdDecompressor()
#: Bytes of a record or a listing: longer ones are refused on their way in.
_LONGEST = 1 << 24


class Origin(NamedTuple):
    """What a build uses, as the tables lease and artifact have it."""

    record: bytes  # zstd
    inputs_digest: str
    toolchain: str
    made_with: str  # JSON

    def columns(self) -> dict[str, object]:
        """By the names of the columns."""
        return self._asdict()


UNKNOWN = Origin(b"", "", "", "[]")


def pack(text: bytes) -> bytes:
    """Text as it is stored."""
    return _PACK.compress(text)


def current(
    store: Store,
    catalog: Catalog,
    package: int,
    artifacts: Mapping[int, Artifact] | None = None,
) -> Origin:
    """What the package would be made of now; `artifacts` are those that are to be."""
    entry = catalog.entries[package]
    made_with = _requirements(catalog, package, artifacts or {})
    return Origin(
        pack(_text(store, entry.id)),
        entry.place.inputs_digest,
        catalog.profile.toolchain,
        json.dumps([list(pair) for pair in made_with]),
    )


def of_row(row: Row | None) -> Origin:
    """What the row of a lease or an artifact says."""
    if row is None:
        return UNKNOWN
    return Origin(row["record"], row["inputs_digest"], row["toolchain"], row["made_with"])


def _text(store: Store, package_id: int) -> bytes:
    row = store.row("record_text", (package_id,))
    return b"" if row is None else bytes(row["text"])


def _requirements(
    catalog: Catalog, package: int, artifacts: Mapping[int, Artifact]
) -> Iterable[tuple[str, str]]:
    """(pkgname, content digest) of each; what is not built has no digest."""
    for other in catalog.graph.requires[package]:
        built = catalog.artifacts.get(other) if catalog.graph.state[other] is State.BUILT else None
        artifact = artifacts.get(other) or built
        if artifact is None:
            yield catalog.entries[other].pkgname, ""
        else:
            yield artifact.pkgname, artifact.content_digest


def trusted(catalog: Catalog, place: Pkgpath, inputs_digest: str) -> dict[int, Artifact]:
    """Artifacts that were taken over, if now it is known which files a build of theirs reads.

    Nobody can say whether those are the files they were built from; as long as the rest of
    what they were made of is the same, they are taken for them. By package; with new keys.
    """
    found: dict[int, Artifact] = {}
    for package in place.packages:
        artifact = catalog.artifacts.get(package)
        if artifact is None or artifact.attempt or artifact.input_key != catalog.key(package):
            continue
        key = catalog.key(package, inputs_digest=inputs_digest)
        found[package] = replace(artifact, input_key=key)
    return found


# --- why an artifact is not current ---------------------------------------------------------


def why_stale(store: Store, catalog: Catalog, package: int) -> list[str]:
    """A sentence for each reason why the newest artifact of a package is not current.

    Empty if it is, or if there never was one. What a requirement that is still to be built will
    change is not known yet, and not said.
    """
    row = store.row("newest_artifact", (catalog.entries[package].id,))
    if row is None:
        return []
    if row["missing_at"] is not None:
        return [f"the package file of {row['pkgname']} is gone from the repository, or damaged"]
    if row["discarded_at"] is not None:
        return [row["discarded_why"] or "it is to be built again by order"]
    entry, policy = catalog.entries[package], catalog.profile.policy
    if policy == "exists" or (policy == "version" and row["pkgname"] == entry.pkgname):
        return []
    if policy == "version":
        return [f"it is {entry.pkgname} now, not {row['pkgname']}"]
    if row["pkgname"] == entry.pkgname and row["input_key"] == catalog.key(package):
        return []
    was, now = of_row(row), current(store, catalog, package)
    if was == UNKNOWN:
        return ["what it was made of is not known"]
    return stale.reasons(_ingredients(store, was), _ingredients(store, now))


def _ingredients(store: Store, origin: Origin) -> stale.Ingredients:
    required = [(str(name), str(digest)) for name, digest in json.loads(origin.made_with)]
    return stale.Ingredients(
        unpack(origin.record),
        origin.inputs_digest,
        _listing(store, origin.inputs_digest),
        origin.toolchain,
        required,
    )


def unpack(stored: bytes) -> bytes:
    """What `pack` was given."""
    return _UNPACK.decompress(stored, max_output_size=_LONGEST) if stored else b""


def _listing(store: Store, digest: str) -> dict[str, str] | None:
    row = store.row("inputs", (digest,)) if digest else None
    return None if row is None else inputs.read_listing(unpack(row["listing"]))
