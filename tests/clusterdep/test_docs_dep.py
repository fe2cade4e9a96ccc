"""The documentation names everything there is."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import sqlite_utils
from dep_daemon import Daemon, built, record

from clusterdep import config
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.cli import parser
from clusterdep.core.status import Status

ROOT = Path(__file__).parents[2]


def _first_cells(path: str) -> list[str]:
    """The first cells of the rows of tables."""
    return re.findall(r"^\|([^|]*)\|", (ROOT / path).read_text(), re.M)


def test_every_kind_of_event_is_documented() -> None:
    written = set()
    for path in (ROOT / "clusterdep").glob("*.py"):
        text = path.read_text()
        written |= set(re.findall(r"\.event\(\s*[\w.\"]+,\s*\"([a-z-]+)\"", text))
    written |= {"built", "failed", "returned"}  # the words of the outcome itself
    written |= {"restored"}  # written while no daemon runs
    written |= {"scan-granted", "scan-done", "scan-returned", "scan-lapsed"}  # of scans likewise
    documented = set(re.findall(r"`([a-z-]+)`", "".join(_first_cells("docs/events.md"))))
    assert written == documented


def test_every_command_has_help() -> None:
    text = parser().format_help()
    commands = (
        "serve load scan resolve match jobs show requires required-by why status events db "
        "history profile select retry search breaks import"
    )
    for command in commands.split():
        assert re.search(rf"^    {command}\b", text, re.M), command


async def test_every_documented_query_runs(dep: Daemon) -> None:
    await dep.load(record("liba-1.0"), record("prog-1.0", ["liba-[0-9]*", "nosuch>=1"]))
    grant = (await dep.exchange()).grants[0]
    await dep.exchange(
        results=[built(grant, stages=[pb.StageTime(stage="build", wall=2.5, cpu=1.5)])], hosts=[]
    )
    text = (ROOT / "docs/database.md").read_text()
    queries = re.findall(r"sqlite-utils clusterdep.db \"(.*?)\"\n", text, re.S)
    assert len(queries) == 6
    found = []
    for query in queries:
        program = Path(sys.executable).with_name("sqlite-utils")
        done = await asyncio.create_subprocess_exec(
            program, "query", str(dep.state / "clusterdep.db"), query, stdout=-1
        )
        out, _ = await done.communicate()
        assert done.returncode == 0, query
        found.append(json.loads(out))
    assert found[0][0]["pkgname"] == "liba-1.0"
    assert [row["pattern"] for row in found[1]] == ["nosuch>=1"]
    assert found[2] == [{"required": "liba-1.0", "dependents": 1}]
    assert found[5] == [{"stage": "build", "wall": 3.0, "cpu": 2.0}]


async def test_every_table_is_documented(dep: Daemon) -> None:
    text = (ROOT / "docs/database.md").read_text()
    names = set(sqlite_utils.Database(dep.state / "clusterdep.db").table_names())
    ours = {name for name in names if not name.startswith(("sqlite_", "_sqlite"))}
    assert ours == set(re.findall(r"^\| `([a-z_]+)` \|", text, re.M))


def test_every_setting_status_and_metric_is_documented() -> None:
    text = (ROOT / "docs/clusterdep.md").read_text()
    named = set(re.findall(r"`([a-z_]+)`", text))
    settings = set(config.Settings.__dataclass_fields__) - {"profiles"} | {"profile"}
    assert settings <= named
    assert set(config.ProfileSettings.__dataclass_fields__) <= named
    assert {status.value for status in Status} <= named
    source = (ROOT / "clusterdep/metrics.py").read_text()
    metrics = set(re.findall(r'"(clusterdep_[a-z_]+)"', source))
    assert {m.removesuffix("_total") for m in named if m.startswith("clusterdep_")} == metrics
