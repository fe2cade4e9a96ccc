"""The report: what it says, and when a run is complete."""

import json
from dataclasses import replace

import pytest

from clusterbuild import gather
from clusterbuild.report import (
    Count,
    Failed,
    Report,
    ScanFailure,
    Unbuilt,
    duration,
    render,
    sentence,
    to_json,
)
from clusterdep.api.v1 import clusterdep_pb2 as pb

FULL = Report(
    profile="example",
    tree="/tree",
    prefix="/usr/pkg",
    selection=("broken", "devel/libfoo"),
    started=1_000_000_000.0,
    ended=1_000_000_187.0,
    counts={"built": Count(5, 4, 3), "failed": Count(1, 1, 1), "skipped": Count(2, 1, 1)},
    built=("libfoo-1.0", "good-1.0"),
    failed=(
        Failed(
            "bad-1.0",
            "broken/bad",
            "failed",
            "in stage build: exit status 1",
            host="localhost",
            seconds=12.4,
            log="/logs/bad-1.0/a1/build.log",
            blocks=("a-1", "b-1", "c-1", "d-1", "e-1", "f-1", "g-1"),
        ),
    ),
    blocked=(Unbuilt("a-1", "broken/a", "blocked", "a-1 needs bad-1.0, which is failed"),),
    unresolved=(Unbuilt("u-1", "broken/u", "unresolved", "no package matches x>=9"),),
    prefailed=(Unbuilt("p-1", "broken/p", "prefailed", "is marked as broken"),),
    skipped=(Unbuilt("s-1", "broken/s", "skipped", "not for this platform"),),
    left=(Unbuilt("l-1", "broken/l", "held", "it is held"),),
    duplicate=(Unbuilt("libfoo-1.0", "wip/libfoo", "prefailed", "an earlier record"),),
    scan_failures=(ScanFailure("broken/scan", "Makefile line 3: Missing dependency operator"),),
    scan_failure_count=4,
    missing_selection=("nosuch/thing",),
    repository="/state/packages/example/All",
    logs="/state/logs/example",
    directory="/state/report",
)
EMPTY = Report("example", "/tree", "/usr/pkg", (), 10.0, 12.0, {"built": Count(1, 1, 1)})


def test_everything_is_named():
    text = render(FULL)
    for part in (
        "selected  broken devel/libfoo",
        "took      3 min 7 s",
        "Built in this run (2)\n  libfoo-1.0\n  good-1.0\n",
        "Failed (1)\n  bad-1.0  (broken/bad)\n      in stage build: exit status 1, on localhost",
        "log: /logs/bad-1.0/a1/build.log",
        "blocks 7: a-1, b-1, c-1, d-1, e-1 and 2 more",
        "a-1 needs bad-1.0, which is failed",
        "no package matches x>=9",
        "is marked as broken",
        "not for this platform",
        "it is held",
        "Of the same name as an earlier record, which stands (1)\n  libfoo-1.0  (wip/libfoo)",
        "Could not be scanned (4)\n  broken/scan\n      Makefile line 3",
        "  and 3 more\n",
        "nothing of that name\n  nosuch/thing",
        "/state/packages/example/All",
        "/state/logs/example",
        "/state/report",
    ):
        assert part in text, part


def test_lists_are_cut_on_the_screen_only():
    many = replace(FULL, blocked=FULL.blocked * 60)
    assert "  and 10 more" in render(many, most=50)
    assert render(many).count("a-1 needs bad-1.0") == 60
    assert "good-1.0" not in render(FULL, names=False)


def test_empty_sections_are_left_out():
    text = render(EMPTY)
    for title in ("Failed", "Blocked", "Left", "Skipped", "scanned", "nothing of that name"):
        assert title not in text
    assert "selected  everything" in text
    assert sentence(EMPTY) == "1 of 1 selected packages is built; nothing was built in this run"


def test_a_report_that_is_about_no_run():
    text = render(replace(EMPTY, started=0.0))
    assert "started" not in text
    assert "in this run" not in text


def test_the_outcome_in_a_sentence():
    assert sentence(FULL) == (
        "3 of 5 selected packages are built; 2 were built in this run; 1 is skipped; "
        "1 is left out as a duplicate; 5 are not built; 1 could not be scanned; "
        "nothing is called nosuch/thing"
    )


def test_json_has_it_all():
    values = json.loads(json.dumps(to_json(FULL)))
    assert values["failed"][0]["blocks"][0] == "a-1"
    assert values["counts"]["built"] == {"all": 5, "needed": 4, "selected": 3}
    assert values["complete"] is False
    assert json.loads(json.dumps(to_json(EMPTY)))["complete"] is True


UNSELECTED = Unbuilt("x-1", "devel/x", "blocked", "why", selected=False)


@pytest.mark.parametrize(
    ("change", "complete"),
    [
        ({}, True),
        ({"skipped": FULL.skipped}, True),
        ({"duplicate": FULL.duplicate}, True),
        ({"failed": FULL.failed}, False),
        ({"failed": (replace(FULL.failed[0], selected=False),)}, True),
        ({"blocked": FULL.blocked}, False),
        ({"blocked": (UNSELECTED,)}, True),
        ({"unresolved": FULL.unresolved}, False),
        ({"prefailed": FULL.prefailed}, False),
        ({"left": FULL.left}, False),
        ({"missing_selection": ("x",)}, False),
        ({"scan_failures": FULL.scan_failures}, False),
        ({"scan_failures": (replace(FULL.scan_failures[0], selected=False),)}, True),
        ({"problem": "it was interrupted"}, False),
    ],
    ids=str,
)
def test_when_a_run_is_complete(change, complete):
    assert replace(EMPTY, **change).complete is complete


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3725, "1 h 2 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


class FakeQuery:
    """What clusterdep answers about a profile."""

    def __init__(self, packages, summary, attempts=(), dependents=()):
        self.packages, self.summary = packages, summary
        self.attempts, self.dependents = attempts, dependents

    async def Summary(self, request, timeout):
        return self.summary

    async def ListPackages(self, request, timeout):
        assert request.needed
        for package in self.packages:
            yield pb.Packages(packages=[package])

    async def History(self, request, timeout):
        for attempt in self.attempts:
            if attempt.pkgname == request.package:
                yield attempt

    async def RequiredBy(self, request, timeout):
        assert request.transitive
        for package in self.dependents:
            yield pb.Packages(packages=[package])


def package(name, status, **fields):
    fields = {"selected": True, "needed": True, **fields}
    return pb.Package(
        profile="example", pkgname=name, pkgpath=f"devel/{name}", status=status, **fields
    )


async def test_gathering(tmp_path):
    summary = pb.SummaryResponse(
        profile=pb.Profile(
            name="example", tree="/tree", prefix="/p", selection=["devel", "x-[0-9]*"]
        ),
        scan_failures=2,
        failures=[
            pb.ScanFailure(pkgpath="devel/bad", error="line 1"),
            pb.ScanFailure(pkgpath="net/bad", error="line 2"),
        ],
        counts=[pb.StatusCount(status=pb.STATUS_BUILT, all=3, needed=2, selected=1)],
    )
    query = FakeQuery(
        [
            package("ok-1", pb.STATUS_BUILT),
            package("bad-1", pb.STATUS_FAILED, reason="in stage build: exit status 1"),
            package("blocked-1", pb.STATUS_BLOCKED, reason="blocked-1 needs bad-1"),
            package("skip-1", pb.STATUS_SKIPPED, reason="not here"),
            package("open-1", pb.STATUS_OPEN, selected=False),
            package("wait-1", pb.STATUS_WAITING, reason="for open-1"),
            package("ok-1", pb.STATUS_PREFAILED, reason="an earlier record has this PKGNAME"),
        ],
        summary,
        [pb.Attempt(pkgname="bad-1", host="h", granted=5, ended=9, log="/l/a1", stage="build")],
        [
            package("blocked-1", pb.STATUS_BLOCKED),
            package("other-1", pb.STATUS_BLOCKED, needed=False),
            package("built-1", pb.STATUS_BUILT),
        ],
    )
    report = await gather.gather(query, "example", started=1.0, built=["ok-1"], state=tmp_path)
    assert report.failed == (
        Failed(
            "bad-1",
            "devel/bad-1",
            "failed",
            "in stage build: exit status 1",
            host="h",
            seconds=4.0,
            log="/l/a1/build.log",
            blocks=("blocked-1",),
        ),
    )
    assert [p.pkgname for p in report.blocked] == ["blocked-1"]
    assert [p.pkgname for p in report.skipped] == ["skip-1"]
    assert [(p.pkgname, p.why, p.selected) for p in report.left] == [
        ("open-1", "it is open", False),
        ("wait-1", "it is waiting for open-1", True),
    ]
    assert [p.pkgpath for p in report.duplicate] == ["devel/ok-1"]
    assert [(f.pkgpath, f.selected) for f in report.scan_failures] == [
        ("devel/bad", True),
        ("net/bad", False),
    ]
    assert report.counts == {"built": Count(3, 2, 1)}
    assert report.selection == ("devel", "x-[0-9]*")
    assert report.repository == str(tmp_path / "packages/example/All")


def test_every_status_stands_somewhere():
    said = {*gather.PARTS, pb.STATUS_FAILED, pb.STATUS_BUILT}
    assert said == set(pb.Status.values()) - {pb.STATUS_UNSPECIFIED}


def test_saving(tmp_path):
    path = gather.save(FULL, tmp_path / "report")
    assert path.name == "20010909T014947-example.txt"
    names = sorted(entry.name for entry in path.parent.iterdir())
    assert names == [
        "20010909T014947-example.json",
        "20010909T014947-example.txt",
        "latest.json",
        "latest.txt",
    ]
    assert (path.parent / "latest.txt").read_text() == render(FULL)
    assert json.loads((path.parent / "latest.json").read_text())["profile"] == "example"
    gather.save(EMPTY, tmp_path / "report")
    assert (path.parent / "latest.txt").read_text() == render(EMPTY)
