"""Takes over package files that another system built: reads, keeps and declares them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from clusterbuild.api.v1 import clusterbuild_pb2 as bpb
from clusterbuild.archive import Archive
from clusterbuild.exchange import Exchange
from clusterbuild.package_file import PackageFileError, valid_pkgname, valid_suffix
from clusterbuild.repository import Known, Repository
from clusterdep.api.errors import Fault, Kind

log = logging.getLogger("clusterbuild.importing")

#: Files that are read at once.
AT_ONCE = 2
#: Files between two messages of progress.
PROGRESS = 50


class Importer:
    """Brings package files of a directory into the repository of a profile."""

    def __init__(self, archive: Archive, exchange: Exchange) -> None:
        self._archive = archive
        self._exchange = exchange

    async def run(self, request: bpb.ImportRequest) -> AsyncIterator[bpb.ImportResponse]:
        """See Control.Import in the contract. Raises Fault."""
        found = await asyncio.to_thread(_files, Path(request.directory))
        packages = await self._exchange.packages(request.profile)
        try:
            repository = await self._archive.repository(request.profile)
        except OSError as error:
            raise _cannot_keep(error) from error
        answer = bpb.ImportResponse(ended=True)
        wanted = dict.fromkeys(request.names) if request.names else dict.fromkeys(found)
        answer.absent.extend(name for name in wanted if name not in found)
        names = [name for name in wanted if name in found]
        kept: list[Known] = []
        for at in range(0, len(names), AT_ONCE):
            if at % PROGRESS < AT_ONCE:
                yield bpb.ImportResponse(done=at, total=len(names))
            here = names[at : at + AT_ONCE]
            outcomes = await asyncio.gather(
                *(
                    asyncio.to_thread(
                        _adopt, repository, found[name], name, packages.get(name), request.link
                    )
                    for name in here
                )
            )
            for name, outcome in zip(here, outcomes, strict=True):
                if isinstance(outcome, Known):
                    kept.append(outcome)
                else:
                    answer.refused.add(name=found[name].name, why=outcome)
        await self._declare(request, kept, answer)
        answer.done = answer.total = len(names)
        log.info(
            "%d package files of %s were taken over, %d refused",
            answer.taken,
            request.directory,
            len(answer.refused),
        )
        yield answer

    async def _declare(
        self, request: bpb.ImportRequest, kept: list[Known], answer: bpb.ImportResponse
    ) -> None:
        if not kept:
            return
        told = await self._exchange.take_over(request.profile, request.by or "import", kept)
        answer.taken, answer.known = told.artifacts, told.known
        for refusal in told.refused:
            answer.refused.add(name=refusal.where, why=refusal.why)
        await self._archive.check(request.profile)  # makes them visible


def _files(directory: Path) -> dict[str, Path]:
    """The package files of a directory, or of All in it, by the names of their packages."""
    if not directory.is_absolute() or not directory.is_dir():
        raise Fault(
            Kind.NO_INPUT,
            f"{directory} is no directory on the dispatcher's machine",
            "name the packages directory by its absolute path",
        )
    where = directory / "All" if (directory / "All").is_dir() else directory
    try:
        names = sorted(entry.name for entry in os.scandir(where) if entry.is_file())
    except OSError as error:
        raise Fault(Kind.NO_INPUT, f"{where} cannot be read: {error.strerror}") from error
    paths = [where / name for name in names if valid_suffix(Path(name).suffix)]
    return {path.stem: path for path in paths if valid_pkgname(path.stem)}


def _adopt(
    repository: Repository, path: Path, name: str, package: tuple[str, str] | None, link: bool
) -> Known | str:
    """The kept file, or why it was not kept. Raises Fault if nothing can be kept now."""
    if package is None:
        return "no record of the profile has this name"
    try:
        return repository.adopt(path, name, package, link)
    except PackageFileError as error:
        return str(error)
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) == path:
            return error.strerror or str(error)
        raise _cannot_keep(error) from error


def _cannot_keep(error: OSError) -> Fault:
    return Fault(
        Kind.UNAVAILABLE,
        f"the repository cannot be written: {error.strerror or error}",
        "nothing was recorded; mend it and import again",
    )
