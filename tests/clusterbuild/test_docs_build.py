"""The dispatcher's documentation names everything there is, and nothing else."""

import re
from pathlib import Path

from clusterbuild import cli, config
from clusterbuild.core import hosts, job

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/dispatcher.md").read_text()


def table(title):
    """The rows of the table below a heading."""
    part = TEXT.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\|(.*)\|$", part, re.M)[2:]
    return [[cell.strip() for cell in row.split(" | ")] for row in rows]


def words(cell):
    return re.findall(r"`([^`]*)`", cell)


def test_every_key():
    rows = table("Configuration")
    assert {words(row[0])[0] for row in rows} == set(config.KEYS)
    assert {words(row[0])[0] for row in rows if row[3].startswith("x")} == set(config.RELOADED)
    defaults = {words(row[0])[0]: row[1] for row in rows}
    assert defaults["time_limit"] == '`"8h"`'
    assert config.Settings().time_limit == 8 * 3600
    assert defaults["log_limit"] == '`"256M"`'
    assert config.Settings().log_limit == 256 * 2**20
    assert defaults["log_attempts"] == str(config.Settings().log_attempts)


def test_every_phase():
    rows = table("A job's life")
    assert [words(row[0])[0] for row in rows] == [
        *(phase.value for phase in job.Phase if phase not in (job.Phase.LOST, job.Phase.DONE)),
        "lost",
        "done",
    ]
    taken = {words(row[0])[0] for row in rows if row[2] == "taken"}
    assert taken == {phase.value for phase in job.WITH_SLOT}


def test_every_host_state():
    rows = table("A host's life")
    assert {words(row[0])[0] for row in rows} == {state.value for state in hosts.State}


def test_every_metric():
    told = {name for row in table("Metrics") for name in words(row[0])}
    source = (ROOT / "clusterbuild/metrics.py").read_text()
    made = set()
    pattern = r"(Counter|Histogram|GaugeMetricFamily|CounterMetricFamily)\(\s*\"([a-z_]+)\""
    for kind, name in re.findall(pattern, source):
        made.add(f"{name}_total" if kind.startswith("Counter") else name)
    assert told == made


def test_every_command_has_help():
    text = cli.parser().format_help()
    for command in ["serve", "run", "status", "hosts", "jobs", "log", "report", "stop", "resume",
                    "import"]:  # fmt: skip
        assert re.search(rf"^    {command}\b", text, re.M), command
