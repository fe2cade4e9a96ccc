"""Answers that may be long: made a page at a time, at the reader's speed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.core import search
from clusterdep.core.dewey import PatternError
from clusterdep.core.graph import State
from clusterdep.ledger import Ledger
from clusterdep.questions import Questions
from clusterdep.render import STATUSES, package_message
from clusterdep.store.database import Reader

#: Packages on a page: some milliseconds of work.
PAGE = 500
#: What a search finds unless told otherwise.
USUAL = 100
#: Of so many packages a fraction, it is cheaper to walk all of them in scan order than to sort.
_FEW = 8
_Messages = Callable[[Catalog, Iterable[int]], list[pb.Package]]


class Lists:
    """Lists of packages, as they are when each page is made."""

    def __init__(self, ledger: Ledger, questions: Questions) -> None:
        self.ledger = ledger
        self._questions = questions

    def open_jobs(self, name: str, limit: int) -> Iterator[pb.Packages]:
        """What could be built now, most urgent first; of several profiles, one after the other."""
        left = _limit(limit)
        catalogs = [self.ledger.catalog(name)] if name else list(self.ledger.catalogs.values())
        for catalog in catalogs:
            ready = list(catalog.ready)[:left]
            if left is not None:
                left -= len(ready)
            yield from _pages(catalog, ready, whole_messages)

    def packages(self, request: pb.ListPackagesRequest) -> Iterator[pb.Packages]:
        """Packages of a profile in scan order."""
        catalog = self.ledger.catalog(request.profile)
        wanted = set(request.statuses)
        among: Callable[[int], bool] | None = None
        if request.selected:
            among = catalog.selected.__contains__
        elif request.needed:
            among = catalog.needed.__contains__
        chosen = [
            package
            for package in catalog.in_order()
            if (among is None or among(package))
            and (not wanted or STATUSES[catalog.status(package)] in wanted)
        ]
        return _pages(catalog, chosen, whole_messages)

    def requires(self, request: pb.PackageRequest) -> Iterator[pb.Requirements]:
        """What a package requires; transitively, each package once and without a pattern."""
        catalog, package = self._questions.find(request)
        if not request.transitive:
            yield pb.Requirements(requirements=self._questions.requirements(catalog, package))
            return
        found = catalog.graph.closure((package,)) - {package}
        for part in _standing(catalog, in_order(catalog, found)):
            yield pb.Requirements(requirements=[_required(catalog, other) for other in part])

    def required_by(self, request: pb.PackageRequest) -> Iterator[pb.Packages]:
        """What requires a package, in scan order."""
        catalog, package = self._questions.find(request)
        if request.transitive:
            found = catalog.graph.dependent_closure((package,)) - {package}
        else:
            found = set(catalog.graph.dependents[package])
        return _pages(catalog, in_order(catalog, found), brief_messages)

    def breaks(self, request: pb.PackageRequest) -> Iterator[pb.Packages]:
        """What can not be built as long as a package is not, in scan order."""
        catalog, package = self._questions.find(request)
        return _pages(catalog, in_order(catalog, broken_by(catalog, package)), brief_messages)

    async def search(self, request: pb.SearchRequest) -> AsyncIterator[pb.Packages]:
        """Packages by words or a pattern, best first. Raises Fault for what can not be read."""
        catalog = self.ledger.catalog(request.profile)
        limit = _limit(request.limit) or USUAL
        if not request.words.strip():
            raise Fault(Kind.DATA, "words is empty", "say what to search for")
        if len(request.words) > search.LONGEST:
            raise Fault(Kind.DATA, f"words has more than {search.LONGEST} characters")
        # SQLite looks for the words, and holds nobody up meanwhile; what fits best is ours.
        query = "names" if search.is_pattern(request.words) else "texts"
        words = [word for word in request.words.lower().split() if word.isascii()]
        values = {"profile_id": catalog.profile.id, "words": json.dumps(words)}

        def find(reader: Reader) -> list[int]:
            candidates = map(search.Candidate._make, reader.rows(query, values))
            return search.search(request.words, candidates, limit)

        try:
            found = await self.ledger.store.read(find)
        except PatternError as error:
            raise Fault(Kind.DATA, str(error)) from error
        there = [catalog.index[number] for number in found if number in catalog.index]
        for page in _pages(catalog, there, brief_messages):
            yield page


def brief_messages(catalog: Catalog, packages: Iterable[int]) -> list[pb.Package]:
    """Packages without the reasons for their status, and what else takes long to say."""
    profile, entries, status = catalog.profile.name, catalog.entries, catalog.status
    selected, needed, message = catalog.selected, catalog.needed, pb.Package
    found = []
    for package in packages:
        entry = entries[package]
        found.append(
            message(
                profile=profile,
                pkgpath=entry.place.path,
                variant=entry.variant,
                pkgname=entry.pkgname,
                status=STATUSES[status(package)],
                selected=package in selected,
                needed=package in needed,
            )
        )
    return found


def whole_messages(catalog: Catalog, packages: Iterable[int]) -> list[pb.Package]:
    """Packages with the reasons for their status."""
    return [package_message(catalog, package) for package in packages]


def broken_by(catalog: Catalog, package: int) -> set[int]:
    """Transitive dependents of a package that nothing else keeps from ever being built."""
    graph = catalog.graph
    found: set[int] = set()
    work = [package]
    while work:
        for other in graph.dependents[work.pop()]:
            if other not in found and other != package and graph.own[other] is State.OPEN:
                found.add(other)
                work.append(other)
    return found


def in_order(catalog: Catalog, found: set[int]) -> list[int]:
    """Some packages in scan order."""
    if len(found) * _FEW > len(catalog.index):
        return [package for package in catalog.in_order() if package in found]
    return sorted(found, key=lambda package: catalog.entries[package].order)


def _limit(limit: int) -> int | None:
    if limit < 0:
        raise Fault(Kind.DATA, f"limit is {limit}", "0 means no limit, or the usual one")
    return limit or None


def _required(catalog: Catalog, package: int) -> pb.Requirement:
    entry = catalog.entries[package]
    return pb.Requirement(
        pkgpath=entry.place.path,
        pkgname=entry.pkgname,
        status=STATUSES[catalog.status(package)],
    )


def _standing(catalog: Catalog, packages: Sequence[int]) -> Iterator[list[int]]:
    """Pages of the packages; those that are gone when theirs is made are left out."""
    ids = [catalog.entries[package].id for package in packages]
    for at in range(0, len(ids), PAGE):
        yield [catalog.index[number] for number in ids[at : at + PAGE] if number in catalog.index]


def _pages(catalog: Catalog, packages: Sequence[int], messages: _Messages) -> Iterator[pb.Packages]:
    for part in _standing(catalog, packages):
        yield pb.Packages(packages=messages(catalog, part))
