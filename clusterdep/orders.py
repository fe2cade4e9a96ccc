"""Orders of operators: profiles, selections, retries."""

from __future__ import annotations

from clusterdep import naming
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.catalog import selection
from clusterdep.core.graph import State
from clusterdep.facts import Profile
from clusterdep.feed import Feed
from clusterdep.ledger import Ledger, check_profile
from clusterdep.render import profile_message

#: Columns of the table profile that PutProfile sets.
COLUMNS = (
    "tree",
    "prefix",
    "pkgdb",
    "kit",
    "make",
    "opsys",
    "os_version",
    "machine_arch",
    "distdir",
    "policy",
    "resolver",
    "follow",
    "follow_seconds",
    "scans",
    "parent",
    "toolchain",
)


class Orders:
    """What operators tell the daemon to do."""

    def __init__(self, ledger: Ledger, feed: Feed) -> None:
        self.ledger = ledger
        self._feed = feed

    async def put_profile(self, wanted: pb.Profile) -> pb.Profile:
        """Makes a profile or changes one; see Admin.PutProfile in the contract."""
        if wanted.name not in self.ledger.catalogs:
            return profile_message(self.ledger.create_profile(wanted).profile)
        check_profile(wanted)
        catalog = self.ledger.catalog(wanted.name)
        selection(wanted.selection)
        fields = {c: getattr(wanted, c) for c in COLUMNS if getattr(wanted, c)}
        changed = {c: v for c, v in fields.items() if v != getattr(catalog.profile, c)}
        entries = tuple(wanted.selection)
        reselected = bool(entries) and entries != catalog.profile.selection
        laid = list(profile_message(catalog.profile).overlays)
        relaid = bool(wanted.overlays) and list(wanted.overlays) != laid
        if changed or reselected or relaid:
            with self.ledger.transaction():
                if changed:
                    self.ledger.store.utils.table("profile").update(catalog.profile.id, changed)
                if reselected:
                    self._write_selection(catalog.profile.id, entries)
                if relaid:
                    self._write_overlays(catalog.profile, wanted)
                self.ledger.event(wanted.name, "profile", wanted.name, "changed", **changed)
            profile = self.ledger.stored_profile(wanted.name)
            await self.ledger.work_off(catalog, catalog.reconsider(profile))
            if "resolver" in changed:
                await self._feed.reconcile(wanted.name)
        return profile_message(catalog.profile)

    def _write_overlays(self, profile: Profile, wanted: pb.Profile) -> None:
        """Those that stay keep the revision up to which they were followed."""
        store = self.ledger.store
        names = {overlay.at for overlay in wanted.overlays}
        for overlay in profile.overlays:
            if overlay.at not in names:
                store.run("drop_overlay", (profile.id, overlay.at))
        rows = [(profile.id, o.at, o.tree, o.follow) for o in wanted.overlays]
        store.run_many("put_overlay", rows)

    def _write_selection(self, profile_id: int, entries: tuple[str, ...]) -> None:
        store = self.ledger.store
        store.run("select_clear", (profile_id,))
        store.run_many("select_add", [(profile_id, at, entry) for at, entry in enumerate(entries)])

    def select(self, name: str, entries: list[str]) -> pb.SelectResponse:
        """Replaces the selection of a profile."""
        catalog = self.ledger.catalog(name)
        wanted = tuple(dict.fromkeys(entries))
        selection(wanted)
        if wanted != catalog.profile.selection:
            with self.ledger.transaction():
                self._write_selection(catalog.profile.id, wanted)
                self.ledger.event(
                    catalog.profile.name,
                    "selected",
                    catalog.profile.name,
                    ", ".join(wanted) or "everything",
                )
            catalog.profile = self.ledger.stored_profile(catalog.profile.name)
            catalog.select(wanted)
        return pb.SelectResponse(
            selected=len(catalog.selected),
            needed=len(catalog.needed),
            missing=catalog.missing_selection,
        )

    def retry(self, name: str, packages: list[str]) -> int:
        """Failures of the packages, or of all, count no more. Returns of how many."""
        catalog = self.ledger.catalog(name)
        chosen = (
            [naming.find(catalog, text) for text in packages]
            if packages
            else sorted(catalog.failures)
        )
        failed = [p for p in chosen if p in catalog.failures]
        if not failed:
            return 0
        now = self.ledger.clock()
        with self.ledger.transaction():
            for package in failed:
                entry = catalog.entries[package]
                self.ledger.store.run("retry", (now, entry.id))
                self.ledger.event(catalog.profile.name, "retried", entry.pkgname, "by order")
        was_failed = sum(catalog.graph.state[p] is State.FAILED for p in failed)
        for package in failed:
            catalog.forgive(package)
        return was_failed

    def lose_artifacts(self, name: str, missing: list[str], dispatcher: str = "") -> int:
        """A repository does not have these artifacts (sha256) any more.

        With `dispatcher` those that another one keeps are left alone.
        """
        catalog = self.ledger.catalog(name)
        wanted = set(missing)
        lost = {
            p: a
            for p, a in catalog.artifacts.items()
            if a.sha256 in wanted and (not dispatcher or a.dispatcher in ("", dispatcher))
        }
        if not lost:
            return 0
        now = self.ledger.clock()
        with self.ledger.transaction():
            for artifact in lost.values():
                self.ledger.store.run("lose_artifact", (now, artifact.sha256, catalog.profile.id))
                self.ledger.event(
                    catalog.profile.name,
                    "artifact-missing",
                    artifact.pkgname,
                    "the repository does not have it, or it is damaged",
                    sha256=artifact.sha256,
                )
        catalog.lose_artifacts(lost)
        return len(lost)
