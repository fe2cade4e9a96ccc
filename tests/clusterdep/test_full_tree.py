"""A complete real tree through `load` into a running daemon."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from dep_daemon import Daemon, host

from clusterdep import cli_call
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli_feed import put
from clusterdep.scanfile import ScanFile

DATA = Path(os.environ.get("CLUSTERDEP_TESTDATA", Path(__file__).parents[2] / "../shared/data"))
PSCAN = DATA / "pscan.zst"


@pytest.mark.timeout(300)
@pytest.mark.skipif(not PSCAN.exists() and "CI" not in os.environ, reason=f"no {PSCAN}")
async def test_a_real_tree_is_loaded_and_understood(dep: Daemon) -> None:
    header = pb.PutHeader(profile="p", mode=pb.PutHeader.MODE_REPLACE, create=True)
    with ScanFile(str(PSCAN)) as file:
        parts = (pb.PutRecordsRequest(records=piece) for piece in file.pieces())
        answer = await put(dep.caller, header, parts, pb.PutEnd(complete=True))
    assert (answer.records, answer.pkgpaths, answer.refused_count) == (29022, 20206, 0)

    counts = Counter((await dep.statuses()).values())
    # 27,370 could be built; the rest never.
    assert counts["open"] + counts["waiting"] == 27370
    del counts["open"], counts["waiting"]
    assert counts == {"skipped": 1148, "prefailed": 175, "unresolved": 6, "blocked": 323}

    async def patterns(name: str) -> list[str]:
        request = pb.PackageRequest(profile="p", package=name)
        return [
            requirement.pattern
            async for page in dep.caller.query.Requires(request)
            for requirement in page.requirements
            if not requirement.pkgname
        ]

    assert await patterns("py313-libagent") == ["py313-daemon>=2.3.0"]
    assert await patterns("py311-buildbot-badges") == ["py311-buildbot-[0-9]*"]

    popular = await dep.caller.query.GetPackage(pb.PackageRequest(profile="p", package="cwrappers"))
    assert popular.package.depth == 29015  # as pbulk counts: its dependents and itself
    first = (await dep.exchange(hosts=[host(free=64, slots=64)])).grants
    assert first
    check = await dep.caller.admin.CheckDatabase(pb.CheckDatabaseRequest(), timeout=120)
    assert check.sound, check.findings[:5]

    # The same again changes nothing.
    with ScanFile(str(PSCAN)) as file:
        parts = (pb.PutRecordsRequest(records=piece) for piece in file.pieces())
        answer = await put(dep.caller, header, parts, pb.PutEnd(complete=True))
    assert (answer.added, answer.changed, answer.removed) == (0, 0, 0)
    summary = await dep.caller.query.Summary(pb.SummaryRequest(profile="p"))
    assert summary.leases == len(first)
    assert cli_call.as_dict(summary)["pkgpaths"] == 20206
