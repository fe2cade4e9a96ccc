"""Follows trees: what changed in them becomes pkgpaths that are to be scanned again.

It is told by `clusterdep changed`, and looks for itself. Files that very many pkgpaths read
wait for more changes before these are marked; they wait in the database, and builds go on
meanwhile. The marks are committed first, then up to where the tree was followed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clusterdep import outdated
from clusterdep.api.errors import Fault, Kind
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import Catalog
from clusterdep.core import changes as core
from clusterdep.layout import place_of, places, real_path
from clusterdep.ledger import Ledger
from clusterdep.looking import Changes, Look, Looking

log = logging.getLogger("clusterdep.follow")

#: How often it is looked whether a tree is due, seconds; and when for the first time: a daemon
#: that starts answers for its jobs before.
TICK = 1.0
FIRST = 3.0
#: Files wait for more changes so many times the settling time at most.
PATIENCE = 5
#: Pkgpaths that are marked in one commit.
SLICE = 500
#: What an answer lists at most.
MOST_RESCANS = 1000
MOST_UNREAD = 100


@dataclass(frozen=True)
class Rules:
    """When a changed file waits for others."""

    hot_readers: int = 500  # pkgpaths that read it: more of them, and it waits
    settle_seconds: float = 300.0  # so long after the last change


@dataclass(frozen=True)
class Outcome:
    """What a look led to."""

    look: Look
    effect: core.Effect
    due: Changes  # files that were taken in
    wait: Changes  # files that wait for more
    marked: int = 0  # pkgpaths that were up to date before


class Follow:
    """Marks what has to be scanned again."""

    def __init__(self, ledger: Ledger, state: Path, rules: Rules) -> None:
        """`state` is the daemon's directory: listings of trees are kept there."""
        self.ledger = ledger
        self.rules = rules
        self._looking = Looking(ledger, state)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self) -> None:
        """Looks at each tree when it is due, for ever."""
        await asyncio.sleep(FIRST)
        while True:
            for name in list(self.ledger.catalogs):
                try:
                    await self.tend(name)
                except Fault as fault:
                    if not self.ledger.store.stopped:  # that was said already
                        log.error("profile %s: %s", name, fault)
            await asyncio.sleep(TICK)

    async def tend(self, name: str) -> None:
        """Looks at the trees of a profile if one is due, and takes in what has waited enough."""
        due = self._looking.due(name)
        if due or self._settled(name):
            async with self._locks[name]:
                look = await self._looking.look(name) if due else Look()
                await self._take(name, look, at_once=False)

    def standing(self, name: str) -> list[pb.Following]:
        """How it stands with the trees of a profile that are followed."""
        found = self._looking.standing(name)
        for following in found[:1]:
            following.waiting = len(self._waiting(name))
        return found

    # ---- told

    async def tree_changed(self, request: pb.TreeChangedRequest) -> pb.TreeChangedResponse:
        """See Feed.TreeChanged in the contract."""
        catalog = self.ledger.catalog(request.profile)
        name = catalog.profile.name
        followed = any(place.follow != "none" for place in places(catalog.profile))
        if not request.files and not followed:
            raise Fault(
                Kind.PRECONDITION,
                f"profile {name} does not say how changes of its tree are seen",
                f"name the files that changed, or: clusterdep profile set {name} --follow git",
            )
        async with self._locks[name]:
            told = await asyncio.to_thread(_told, catalog, list(request.files))
            look = Look(told)
            if not request.files or (followed and not request.dry_run):
                look = await self._looking.look(name)
                if look.errors:
                    raise Fault(Kind.PRECONDITION, "; ".join(look.errors))
                # What is in its trees it has seen; of files elsewhere it has to be told.
                look.changes |= {p: kind for p, kind in told.items() if p.startswith("/")}
            if request.dry_run:
                effect = await self._effect(catalog, look)
                wait = self._hot(catalog, look.changes)
                outcome = Outcome(look, effect, look.changes, await wait)
            else:
                outcome = await self._take(name, look, request.at_once, request.revision)
        return await self._answer(catalog, outcome, request.explain)

    # ---- files that wait

    def _waiting(self, name: str) -> list[tuple[str, core.Kind, float, float]]:
        """(path, what became of it, when it changed first, when last) of files that wait."""
        rows = self.ledger.store.rows("waiting_files", (self.ledger.catalog(name).profile.id,))
        return [(r["path"], core.Kind(r["kind"]), r["first_at"], r["last_at"]) for r in rows]

    def _settled(self, name: str, more: bool = False) -> bool:
        """Whether files that wait have waited long enough; `more`: others came just now."""
        waits = self._waiting(name)
        if not waits:
            return False
        now, settle = self.ledger.clock(), self.rules.settle_seconds
        quiet = not more and now >= max(last for *_, last in waits) + settle
        return quiet or now >= min(first for _, _, first, _ in waits) + PATIENCE * settle

    async def _hot(self, catalog: Catalog, changes: Changes) -> Changes:
        if not changes:
            return {}
        readers = await self.ledger.files.readers(catalog.profile.id)
        hot = core.hot(changes, readers, self.rules.hot_readers)
        return {path: changes[path] for path in hot}

    async def _sorted(
        self, catalog: Catalog, changes: Changes, at_once: bool
    ) -> tuple[Changes, Changes]:
        """(what is due now, what has to wait) of what was found and what has waited."""
        name = catalog.profile.name
        hot = {} if at_once else await self._hot(catalog, changes)
        if at_once or self._settled(name, bool(hot)):
            waited = {path: kind for path, kind, *_ in self._waiting(name)}
            return waited | changes, {}
        return {path: kind for path, kind in changes.items() if path not in hot}, hot

    # ---- what follows

    async def _effect(self, catalog: Catalog, look: Look) -> core.Effect:
        readers = await self.ledger.files.readers(catalog.profile.id)
        texts = await asyncio.to_thread(_texts, catalog, look.changes, list(readers.shared()))
        known = core.Known(
            {place.path: place.id for place in catalog.paths.values()},
            catalog.scan_failures,
            readers,
            lambda path: texts.get(path) or _text(catalog, path),
            {place.id: place.path for place in catalog.paths.values()},
        )
        effect = core.effect(look.changes, known)
        if look.everything:
            effect.rescans = {path: {look.everything: ()} for path in catalog.paths}
            effect.enumerate = effect.enumerate or "Makefile"
        return effect

    async def _take(self, name: str, look: Look, at_once: bool, revision: str = "") -> Outcome:
        """Commits what a look found, and what has waited long enough."""
        catalog = self.ledger.catalog(name)
        due, wait = await self._sorted(catalog, look.changes, at_once)
        effect = core.Effect()
        marked = 0
        if due or look.everything:
            effect = await self._effect(catalog, Look(due, everything=look.everything))
            marks = [(path, core.why(leads)) for path, leads in effect.rescans.items()]
            for at in range(0, len(marks), SLICE):
                marked += len(self.ledger.mark_outdated(name, dict(marks[at : at + SLICE])))
                await asyncio.sleep(0)
        outcome = Outcome(look, effect, due, wait, marked)
        if look.seen or due or wait or look.everything:
            self._commit(catalog, outcome, revision)
        await self._looking.keep(name, look)
        return outcome

    def _commit(self, catalog: Catalog, outcome: Outcome, revision: str) -> None:
        """In one transaction: up to where trees were followed, what waits, and what it was."""
        store, profile = self.ledger.store, catalog.profile
        look, effect, now = outcome.look, outcome.effect, self.ledger.clock()
        reached = revision if not look.seen else look.seen[0][1].revision
        with self.ledger.transaction():
            for place, listing in look.seen:
                words = "overlay_followed" if place.at else "tree_followed"
                store.run(words, (listing.revision, profile.id, place.at))
            if revision and not look.seen:
                store.run("tree_followed", (revision, profile.id, ""))
            store.run_many("settle_file", [(profile.id, path) for path in outcome.due])
            waits = outcome.wait.items()
            store.run_many("wait_file", [(profile.id, p, kind.value, now) for p, kind in waits])
            if effect.enumerate:
                store.run("outdate_lists", (now, f"{effect.enumerate} changed", profile.id))
            if outcome.due or outcome.wait or look.remarks:
                self.ledger.event(
                    profile.name,
                    "tree",
                    reached or profile.name,
                    "; ".join(look.remarks),
                    files=len(outcome.due),
                    waiting=len(outcome.wait),
                    pkgpaths=len(effect.rescans),
                    enumerate=effect.enumerate,
                )
        catalog.profile = self.ledger.stored_profile(profile.name)

    async def _answer(
        self, catalog: Catalog, outcome: Outcome, explain: bool
    ) -> pb.TreeChangedResponse:
        effect, look = outcome.effect, outcome.look
        found = [catalog.paths[path] for path in effect.rescans if path in catalog.paths]
        cost = outdated.cost(catalog, found, len(effect.new))
        answer = pb.TreeChangedResponse(
            revision=look.seen[0][1].revision if look.seen else catalog.profile.followed,
            files=len(outcome.due.keys() | outcome.wait.keys()),
            pkgpaths=len(found) + len(effect.new),
            unread=effect.unread[:MOST_UNREAD],
            enumerate=bool(effect.enumerate),
            rebuilds=cost.rebuilds,
            scan_seconds=cost.scan_seconds,
            rebuild_seconds=cost.rebuild_seconds,
            remarks=look.remarks,
            waiting=sorted(outcome.wait)[:MOST_UNREAD],
            wait_seconds=self.rules.settle_seconds if outcome.wait else 0.0,
            marked=outcome.marked,
        )
        lists = [effect.enumerate] if explain else []
        for words, paths in (("is new", effect.new), ("is gone", effect.gone)):
            for path in paths[:MOST_RESCANS]:
                answer.rescans.add(pkgpath=path, why=words, files=lists)
        for place in outdated.most_needed_first(catalog, found)[:MOST_RESCANS]:
            leads = effect.rescans[place.path]
            files = [path for paths in leads.values() for path in paths] if explain else []
            needed = outdated.needed(catalog, place)
            answer.rescans.add(pkgpath=place.path, why=core.why(leads), files=files, needed=needed)
            await asyncio.sleep(0)
        return answer


def _told(catalog: Catalog, files: Iterable[str]) -> Changes:
    """In a thread: files that somebody named."""
    found: Changes = {}
    for file in files:
        path = real_path(catalog.profile, file)
        there = _exists(place_of(catalog.profile, path))
        # A makefile may be new: then somebody would read it who has not.
        kind = core.Kind.NEW if path.endswith(".mk") else core.Kind.CHANGED
        found[path] = kind if there else core.Kind.GONE
    return found


def _exists(path: Path) -> bool:
    """Whether there is a file; a name that no file can have names none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _text(catalog: Catalog, path: str) -> str:
    try:
        return place_of(catalog.profile, path).read_text(errors="replace")
    except OSError:
        return ""


def _texts(catalog: Catalog, found: Changes, shared: list[str]) -> dict[str, str]:
    """In a thread: the files that are read to see what the changes mean, if there are many."""
    new = (p for p, kind in found.items() if kind is not core.Kind.GONE and p.endswith(".mk"))
    return {path: _text(catalog, path) for path in shared} if any(new) else {}
