"""What a run shows while it goes on."""

import io
import json

import pytest

from clusterbuild.api.v1 import clusterbuild_pb2 as bpb
from clusterbuild.follow import stalled
from clusterbuild.progress import Progress, counts, elapsed, live_line, printable
from clusterdep.api.v1 import clusterdep_pb2 as pb

BUILT = pb.Event(
    sequence=7,
    kind="built",
    subject="foo-1.0",
    detail='{"host": "h1", "seconds": 2.34, "log": "/l", "stage": ""}',
)
FAILED = pb.Event(
    kind="failed",
    subject="bar-1.0",
    cause="exit status 1",
    detail='{"host": "h1", "stage": "build", "log": "/logs/bar-1.0/a1", "blame": "package"}',
)
STATUS = bpb.StatusResponse(
    time=100.0,
    connected=True,
    hosts=[bpb.Host(name="h1", state="ready", slots=2, busy=2)],
    jobs=[
        bpb.Job(pkgname="foo-1.0", phase="building", stage="configure", started=93.0),
        bpb.Job(pkgname="bar-1.0", phase="fetching", stage="clean", started=35.0),
    ],
)


def shown(events, **kinds):
    out = io.StringIO()
    progress = Progress(out, **kinds)
    for event in events:
        progress.event(event, 3, 25)
    progress.say("for people")
    progress.record("report", report={"profile": "x"})
    progress.close()
    return out.getvalue()


def test_a_line_for_each_job():
    assert shown([BUILT, FAILED, pb.Event(kind="granted", subject="x")]) == (
        "[ 3/25] foo-1.0 built in 2.3 s on h1\n"
        "[ 3/25] bar-1.0 FAILED in stage build on h1: exit status 1; "
        "log: /logs/bar-1.0/a1/build.log\n"
        "for people\n"
    )


def test_jobs_that_are_given_back_or_lost():
    back = pb.Event(
        kind="returned", subject="a-1", cause="no space", detail='{"host":"h","blame":"host"}'
    )
    lost = pb.Event(kind="lapsed", subject="b-1", cause="not renewed", detail='{"host":"h"}')
    assert shown([back, lost]).splitlines()[:2] == [
        "[ 3/25] a-1 given back on h (host): no space",
        "[ 3/25] b-1 lost on h: not renewed",
    ]


def test_quiet_shows_failures_only():
    text = shown([BUILT, FAILED], quiet=True)
    assert text.count("\n") == 1
    assert "bar-1.0 FAILED" in text


def test_json_is_an_object_a_line():
    lines = [json.loads(line) for line in shown([BUILT], as_json=True, terminal=True).splitlines()]
    assert [line["kind"] for line in lines] == ["built", "report"]
    assert lines[0]["detail"]["seconds"] == 2.34
    assert lines[0]["sequence"] == 7


def test_a_hostile_log_line_is_only_text():
    event = pb.Event(kind="failed", subject="bar-1.0", cause="\x1b]0;owned\x07 oh\nno")
    assert "\x1b" not in shown([event])
    assert shown([event]).count("\n") == 2
    assert printable("a\x1b[2Jb\u202e") == "a\\x1b[2Jb\\x202e"


def test_the_live_line():
    assert live_line(STATUS, 3, 25) == "[3/25]  foo-1.0 configure 0:07  bar-1.0 fetching 1:05"


def test_the_live_line_says_what_is_wrong():
    status = bpb.StatusResponse(
        connected=False,
        hosts=[
            bpb.Host(name="h1", state="quarantined", reason="3 jobs failed in a row"),
            bpb.Host(name="h2", state="ready", reason="the disk is full"),
        ],
    )
    line = live_line(status, 0, 2)
    assert "clusterdep is away" in line
    assert "h1 is quarantined: 3 jobs failed in a row" in line
    assert "h2 is ready: the disk is full" in line


def test_hosts_that_cannot_build_are_told_of_once():
    def hosts(*states):
        return bpb.StatusResponse(hosts=[bpb.Host(name=n, state=s, reason=r) for n, s, r in states])

    def said(as_json=False):
        out = io.StringIO()
        progress = Progress(out, as_json=as_json, quiet=True)
        for status in (
            hosts(("h1", "unknown", ""), ("h2", "probing", "")),
            hosts(("h1", "ready", ""), ("h2", "refused", "its host key is not known")),
            hosts(("h1", "lost", "it does not answer"), ("h2", "probing", "")),
            hosts(("h1", "probing", ""), ("h2", "refused", "its host key is not known")),
            hosts(("h1", "lost", "refused"), ("h2", "ready", "")),
            hosts(("h1", "draining", ""), ("h2", "ready", "the disk is full\n")),
            hosts(("h1", "ready", ""), ("h2", "ready", "the disk is really full")),
            hosts(("h1", "ready", ""), ("h2", "ready", "")),
        ):
            progress.hosts(status)
        return out.getvalue().splitlines()

    assert said() == [
        "host h2 is refused: its host key is not known",
        "host h1 is lost: it does not answer",
        "host h2 is well again",
        "host h1 is well again",
        "host h2 gets no work: the disk is full\\x0a",
        "host h2 is well again",
    ]
    first = json.loads(said(as_json=True)[0])
    assert first == {
        "kind": "host", "name": "h2", "state": "refused", "reason": "its host key is not known",
    }  # fmt: skip


def test_a_terminal_keeps_the_live_line_last():
    out = io.StringIO()
    progress = Progress(out, terminal=True, width=lambda: 20)
    progress.live(STATUS, 3, 25)
    assert out.getvalue() == "\r\x1b[K[3/25]  foo-1.0 con"
    progress.event(BUILT, 4, 25)
    text = out.getvalue()
    assert text.endswith("\r\x1b[K[ 4/25] foo-1.0 built in 2.3 s on h1\n[3/25]  foo-1.0 con")
    progress.close()
    assert out.getvalue().endswith("\r\x1b[K")


def test_nothing_is_drawn_where_there_is_no_terminal():
    out = io.StringIO()
    Progress(out).live(STATUS, 3, 25)
    assert out.getvalue() == ""


def test_counting():
    summary = pb.SummaryResponse(
        counts=[
            pb.StatusCount(status=pb.STATUS_BUILT, needed=5),
            pb.StatusCount(status=pb.STATUS_FAILED, needed=1),
            pb.StatusCount(status=pb.STATUS_OPEN, needed=2),
            pb.StatusCount(status=pb.STATUS_WAITING, needed=3),
            pb.StatusCount(status=pb.STATUS_LEASED, needed=1),
            pb.StatusCount(status=pb.STATUS_BLOCKED, needed=40),
            pb.StatusCount(status=pb.STATUS_SKIPPED, needed=40),
        ]
    )
    assert counts(summary) == (6, 12)


def test_short_times():
    assert [elapsed(s) for s in (-3, 7, 65, 3723)] == ["0:00", "0:07", "1:05", "1:02:03"]


@pytest.mark.parametrize(
    ("hosts", "fields", "why"),
    [
        ([("ready", "")], {}, ""),
        ([("refused", "no sandbox")], {}, "host h is refused: no sandbox"),
        ([("quarantined", "x")], {}, "host h is quarantined: x"),
        ([("lost", "x")], {}, "host h is lost: x"),
        ([("ready", "the disk is full")], {}, "host h is ready: the disk is full"),
        ([("lost", "x"), ("ready", "")], {}, ""),
        ([("probing", "")], {}, ""),
        ([], {}, "there is no host"),
        ([("refused", "x")], {"leases": 1}, ""),
        ([("refused", "x")], {"idle": True}, ""),
        ([("refused", "x")], {"complete": False}, ""),
        ([("refused", "x")], {"stopping": True}, ""),
    ],
)
def test_when_nothing_can_go_on(hosts, fields, why):
    complete = fields.pop("complete", True)
    status = bpb.StatusResponse(
        stopping=fields.pop("stopping", False),
        hosts=[bpb.Host(name="h", state=state, reason=reason) for state, reason in hosts],
    )
    summary = pb.SummaryResponse(profile=pb.Profile(complete=complete), **fields)
    assert stalled(summary, status) == why
