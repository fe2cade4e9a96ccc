"""The bootstrap kit of a run: made from the tree where it can be, or read for what it says."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from clusterdep.api.errors import Fault, Kind

#: What of a tree a bootstrap reads; those that are there count for the kit's digest.
INPUTS = ("bootstrap", "mk", "pkgtools")
#: How long making a kit may take, seconds.
LIMIT = 1800.0
#: How much of what went wrong people are shown, lines.
TAIL = 15
MK_CONF_LIMIT = 2**20


@dataclass(frozen=True)
class Kit:
    """A kit, and the directories that are compiled into its tools."""

    path: Path
    prefix: str
    pkgdb: str  # empty: PREFIX/pkgdb
    distdir: str = ""  # what its mk.conf says; empty: in the tree


def digest(kit: Kit) -> str:
    """SHA256, hex, of a kit's file. Raises OSError."""
    with kit.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def inputs_digest(tree: Path, words: tuple[str, ...]) -> str:
    """Hex digest of what a kit is made from: files of the tree, and other `words`."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(word.encode() + b"\0")
    for name in INPUTS:
        for path in sorted(path for path in (tree / name).rglob("*") if path.is_file()):
            digest.update(str(path.relative_to(tree)).encode(errors="surrogateescape") + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


async def made_kit(tree: Path, prefix: str, directory: Path, make: str) -> Kit:
    """The kit that TREE/bootstrap/bootstrap makes; made only if what it is made from changed.

    Raises Fault.
    """
    try:
        digest = await asyncio.to_thread(inputs_digest, tree, (prefix, make))
    except OSError as error:
        raise Fault(Kind.NO_INPUT, f"the tree {tree} cannot be read: {error}") from error
    path = directory / f"{digest[:16]}.tgz"
    if not await asyncio.to_thread(path.is_file):
        await _make(tree, prefix, path, make)
    return Kit(path, prefix, f"{prefix}/pkgdb")


async def _make(tree: Path, prefix: str, path: Path, make: str) -> None:
    work = path.with_suffix(".work")
    fresh = path.with_name(f"new-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work, ignore_errors=True)
    words = ["--prefix", prefix, "--pkgdbdir", f"{prefix}/pkgdb"]
    words += ["--workdir", str(work), "--binary-kit", str(fresh)]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    environment["HOME"] = str(path.parent)
    if make:
        environment["MAKE"] = make
    process = await asyncio.create_subprocess_exec(
        "sh",
        str(tree / "bootstrap/bootstrap"),
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        cwd=path.parent,
    )
    try:
        async with asyncio.timeout(LIMIT):
            said, _ = await process.communicate()
    except TimeoutError:
        raise Fault(
            Kind.UNAVAILABLE, f"bootstrap of {tree} took longer than {LIMIT:.0f} s"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode or not fresh.is_file():
        tail = "\n".join(said.decode(errors="backslashreplace").splitlines()[-TAIL:])
        raise Fault(
            Kind.UNAVAILABLE,
            f"the bootstrap kit could not be made (exit status {process.returncode}):\n{tail}",
            f"its work directory is kept in {work}",
        )
    fresh.replace(path)
    shutil.rmtree(work, ignore_errors=True)


def given_kit(path: Path, prefix: str) -> Kit:
    """A kit that somebody made: its prefix is where its pkg_add is, unless `prefix` says so.

    Blocking. Raises Fault.
    """
    names: list[str] = []
    settings: dict[str, str] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = "/" + member.name.removeprefix("./").lstrip("/")
                if name.endswith("/sbin/pkg_add"):
                    names.append(name.removesuffix("/sbin/pkg_add"))
                if name.endswith("/etc/mk.conf") and member.size < MK_CONF_LIMIT:
                    file = archive.extractfile(member)
                    settings = mk_conf_settings(file.read() if file is not None else b"")
    except FileNotFoundError as error:
        raise Fault(Kind.NO_INPUT, f"there is no bootstrap kit {path}") from error
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise Fault(
            Kind.DATA,
            f"{path} is no bootstrap kit: {error}",
            "a kit is what 'bootstrap --binary-kit FILE.tgz' of the tree makes",
        ) from error
    found = prefix or settings.get("LOCALBASE", "") or (names[0] if len(names) == 1 else "")
    if not found.startswith("/"):
        raise Fault(
            Kind.DATA,
            f"the prefix of the kit {path} is not known: it has "
            f"{', '.join(names) or 'no prefix with sbin/pkg_add'}",
            "name it with --prefix DIR",
        )
    if names and found not in names:
        raise Fault(Kind.DATA, f"the kit {path} is for the prefix {names[0]}, and not for {found}")
    return Kit(path, found, settings.get("PKG_DBDIR", ""), settings.get("DISTDIR", ""))


def mk_conf_settings(text: bytes) -> dict[str, str]:
    """LOCALBASE, PKG_DBDIR and DISTDIR of an mk.conf, where they are plain absolute paths."""
    found: dict[str, str] = {}
    for line in text.decode(errors="replace").splitlines():
        match = re.match(r"\s*(LOCALBASE|PKG_DBDIR|DISTDIR)\s*\??=\s*(/\S+)\s*(#.*)?$", line)
        if match and "$" not in match[2]:
            found.setdefault(match[1], match[2])
    return found
