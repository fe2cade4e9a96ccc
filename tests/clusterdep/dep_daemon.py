"""Scan records, and a real daemon on a real socket, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path

from clusterdep import config, daemon
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_call import Caller
from clusterdep.cli_feed import put


def record(
    pkgname: str,
    depends: Iterable[str] = (),
    pkgpath: str = "",
    **fields: str,
) -> bytes:
    """One scan record as make prints it, PKG_LOCATION put in.

    A dependency is a pattern; its location is made up from its base.
    """
    base = pkgname.rpartition("-")[0]
    tokens = [
        d if ":" in d else f"{d}:../../cat/{d.partition('-[')[0].partition('>')[0]}"
        for d in depends
    ]
    values = {
        "PKGNAME": pkgname,
        "PKG_LOCATION": pkgpath or f"cat/{base}",
        "ALL_DEPENDS": "  ".join(tokens),
        "PKG_SKIP_REASON": "",
        "PKG_FAIL_REASON": "",
        "NO_BIN_ON_FTP": "",
        "RESTRICTED": "",
        "CATEGORIES": "cat",
        "MAINTAINER": "somebody@example.org",
        "USE_DESTDIR": "user-destdir",
        "BOOTSTRAP_PKG": "",
        "USERGROUP_PHASE": "",
        "SCAN_DEPENDS": "Makefile ../../mk/bsd.pkg.mk",
    } | fields
    return "".join(f"{key}={value}\n" for key, value in values.items()).encode()


class Daemon:
    """A running clusterdep, and calls to it."""

    def __init__(self, state: Path, clock_offset: float = 0.0) -> None:
        self.state = state
        self.caller: Caller
        self._task: asyncio.Task[None]

    async def start(self, **settings: object) -> None:
        """Starts it on its state directory."""
        values = config.Settings(state=self.state, **settings)  # type: ignore[arg-type]
        self._task = asyncio.create_task(daemon.serve(None, values))
        self.caller = Caller(values.address)
        for _ in range(200):
            if self._task.done():
                self._task.result()
            with contextlib.suppress(Exception):
                await self.caller.query.ListProfiles(pb.ListProfilesRequest(), timeout=1)
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the daemon does not answer")

    async def stop(self) -> None:
        """Ends it as a lost task: what was not committed is gone."""
        await self.caller.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def load(
        self, *records: bytes, profile: str = "p", merge: bool = False, complete: bool = True
    ) -> pb.PutRecordsResponse:
        """Puts records into a profile."""
        mode = pb.PutHeader.MODE_MERGE if merge else pb.PutHeader.MODE_REPLACE
        header = pb.PutHeader(profile=profile, mode=mode, create=True)
        parts = [pb.PutRecordsRequest(records=text) for text in records]
        return await put(self.caller, header, parts, pb.PutEnd(complete=complete))

    async def statuses(self, profile: str = "p") -> dict[str, str]:
        """The status of every package."""
        request = pb.ListPackagesRequest(profile=profile)
        return {
            package.pkgname: pb.Status.Name(package.status)[7:].lower()
            async for page in self.caller.query.ListPackages(request)
            for package in page.packages
        }

    async def exchange(self, wait: float = 0.0, **fields: object) -> pb.ExchangeResponse:
        """One exchange of dispatcher "d", with host "h" of two free slots unless told otherwise."""
        values = {"dispatcher": "d", "hosts": [host()], "wait_seconds": wait} | fields
        answer: pb.ExchangeResponse = await self.caller.work.Exchange(
            pb.ExchangeRequest(**values), timeout=30
        )
        return answer


def host(name: str = "h", free: int = 2, slots: int = 2, **fields: object) -> pb.HostOffer:
    """An offer."""
    values = {"name": name, "state": pb.HOST_STATE_READY, "slots": slots, "free_slots": free}
    return pb.HostOffer(**(values | fields))


def held(*grants: pb.Grant) -> list[pb.Holding]:
    """Grants as the dispatcher lists them."""
    return [pb.Holding(attempt=grant.attempt, fence=grant.fence) for grant in grants]


def built(grant: pb.Grant, content: str = "", **fields: object) -> pb.Result:
    """The result of a build that went well."""
    artifact = pb.Artifact(
        pkgname=grant.pkgname,
        sha256=(grant.attempt * 2)[:64],
        size=100,
        content_digest=content or grant.pkgname,
        summary=f"PKGNAME={grant.pkgname}\n".encode(),
        suffix=".tgz",
    )
    return pb.Result(
        attempt=grant.attempt, fence=grant.fence, built=True, artifact=artifact, **fields
    )


def failed(grant: pb.Grant, blame: pb.Blame = pb.BLAME_PACKAGE) -> pb.Result:
    """The result of a build that did not."""
    return pb.Result(
        attempt=grant.attempt,
        fence=grant.fence,
        blame=blame,
        stage="build",
        message="make exited with 1",
    )
