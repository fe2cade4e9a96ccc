"""What hosts may say: read exactly, and refused where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterbuild.core.result import Evidence, Outcome, PackageFile
from clusterbuild.engines import JobSpec, Life, wire

RESULT = b"""ATTEMPT='a'
OUTCOME='built'
STAGE=''
EXIT='0'
MESSAGE=''
PACKAGE='foo-1.0.tgz'
SIZE='10'
SHA256='%s'
SLOT='2'
SANDBOX='mount'
STARTED='100'
FINISHED='200'
END='yes'
""" % (b"ab" * 32)
MARKS = b"""begin build 100
end build 101 0 1.25 0.50
begin install 101
end install 102 137 -0.01 -0.00
end nonsuch 1 0 1 1
end pack"""


def told(result: bytes = RESULT, marks: bytes = MARKS, summary: bytes = b"") -> bytes:
    files = (("result", result), ("marks", marks), ("summary", summary))
    return b"".join(b"file %s %d\n%s" % (name.encode(), len(data), data) for name, data in files)


def test_a_result() -> None:
    result = wire.job_result("a", told(summary=b"PKGNAME=foo-1.0\nCOMMENT=\xe9\n\n"))
    assert result.outcome is Outcome.BUILT
    assert result.package == PackageFile("foo-1.0.tgz", 10, "ab" * 32)
    assert [(t.stage, t.wall, t.cpu, t.exit) for t in result.stages] == [
        ("build", 1.25, 0.5, 0),
        ("install", 0.0, 0.0, 137),
    ]
    assert result.summary.endswith(b"COMMENT=\xe9\n\n")
    assert (result.slot, result.sandbox, result.started) == (2, "mount", 100.0)


def test_evidence_and_its_details() -> None:
    text = (
        RESULT.replace(b"built", b"failed").replace(b"STAGE=''", b"STAGE='build'")
        + b"EVIDENCE='exit'\nEVIDENCE='no-space'\nDISTFILE='it'\\''s'\n"
    )
    result = wire.job_result("a", told(text))
    assert result.evidence == {Evidence.EXIT, Evidence.NO_SPACE}
    assert result.facts == {"DISTFILE": "it's"}
    assert result.package is None and result.stage == "build"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"END='yes'\n", b""),
        (b"ATTEMPT='a'", b"ATTEMPT='b'"),
        (b"'built'", b"'finished'"),
        (b"STAGE=''", b"STAGE='../x'"),
        (b"EXIT='0'", b"EXIT='x'"),
        (b"SIZE='10'", b"SIZE='-1'"),
        (b"SIZE='10'", b"SIZE='%s'" % (b"9" * 30)),
        (b"foo-1.0.tgz", b"../foo-1.0.tgz"),
        (b"foo-1.0.tgz", b".."),
        (b"foo-1.0.tgz", b"-rf"),
        (b"foo-1.0.tgz", b""),
        (b"foo-1.0.tgz", b"a" * 300),
        (b"'abab", b"'ABab"),
        (b"MESSAGE=''", b"MESSAGE='a'b'"),
        (b"MESSAGE=''", b"EVIDENCE='guilt'"),
        (b"STARTED='100'", b"STARTED='nan'"),
        (b"MESSAGE=''", b"\x00\xff"),
    ],
)
def test_results_that_cannot_be(old: bytes, new: bytes) -> None:
    assert old in RESULT
    with pytest.raises(wire.NonsenseError):
        wire.job_result("a", told(RESULT.replace(old, new)))


def test_a_torn_answer_is_no_result() -> None:
    whole = told()
    for cut in (1, 10, len(whole) // 2, len(whole) - 20):
        with pytest.raises(wire.NonsenseError):
            wire.job_result("a", whole[:cut])


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (wire.job_state, wire.job_states, wire.host_facts):
        try:
            read(data)  # type: ignore[operator]
        except wire.NonsenseError:
            continue
    with pytest.raises(wire.NonsenseError):
        wire.job_result("a", data)


def test_messages_are_printable_and_short() -> None:
    text = RESULT.replace(b"MESSAGE=''", b"MESSAGE='\x1b[31m\xc3\xa9%s'" % (b"x" * 5000))
    message = wire.job_result("a", told(text)).message
    assert message.isprintable() and message.isascii() and len(message) <= 500


def test_states() -> None:
    text = b"job a-1 running build 12 345 678 2 -\njob b gone - 0 0 9 0 rebooted\nend\n"
    first, second = wire.job_states(text)
    assert (first.attempt, first.life, first.stage) == ("a-1", Life.RUNNING, "build")
    assert (first.stage_seconds, first.log_size, first.pid, first.slot) == (12.0, 345, 678, 2)
    assert (second.life, second.stage, second.reason) == (Life.GONE, "", "rebooted")
    assert wire.job_state(b"alive") is None


@pytest.mark.parametrize(
    "line",
    [
        b"job ../a running build 1 1 1 1 -",
        b"job a resting build 1 1 1 1 -",
        b"job a running cook 1 1 1 1 -",
        b"job a running build x 1 1 1 -",
        b"job a running build 1 1 1 1",
        b"",
        b"\xff",
    ],
)
def test_states_that_cannot_be(line: bytes) -> None:
    with pytest.raises(wire.NonsenseError):
        wire.job_state(line)
    with pytest.raises(wire.NonsenseError):
        wire.job_states(line + b"\nend\n")


def test_a_list_without_its_end_is_not_taken() -> None:
    with pytest.raises(wire.NonsenseError):
        wire.job_states(b"job a running build 1 1 1 1 -\n")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=50))
def test_values_go_through_the_job_file_unchanged(value: str) -> None:
    job = JobSpec("a", "foo-1.0", "x/foo", Path("/t"), "/p", variables=(value,), time_limit=0.5)
    text = wire.job_text(job, "", tree="/t", distdir="").decode()
    lines = dict(line.split("=", 1) for line in text.splitlines())
    assert lines["VARIABLE"][1:-1].replace("'\\''", "'") == value
    assert lines["TIME_LIMIT"] == "'1'"
    assert "KIT" not in lines and "SLOTS" in lines


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "é", "\x7f", "a\rb"])
def test_what_cannot_be_sent_is_said(value: str) -> None:
    job = JobSpec("a", "foo-1.0", "x/foo", Path("/t"), "/p", make=value)
    with pytest.raises(ValueError, match="make"):
        wire.job_text(job, "", tree="/t", distdir="")
