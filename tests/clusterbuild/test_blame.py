"""Who is at fault: the table of cases."""

import pytest

from clusterbuild.core import blame as rules
from clusterbuild.core.blame import (
    Blame,
    EngineTrouble,
    Flaw,
    FlawedFile,
    Gone,
    NoRequirement,
    NotKept,
    Overdue,
    Step,
    Stopped,
    judge,
)
from clusterbuild.core.result import Evidence, JobResult, Outcome
from clusterbuild.engines import Kind

E = Evidence


def failed(*evidence, stage="build", status=1, message="", outcome=Outcome.FAILED, **facts):
    return JobResult("a1", outcome, stage, status, message, frozenset(evidence), facts)


RESULTS = [
    # evidence, facts, blame, message
    ((E.EXIT,), {}, Blame.PACKAGE, "exit status 1"),
    ((), {}, Blame.PACKAGE, "exit status 1"),
    ((E.EXIT, E.NO_SPACE), {}, Blame.HOST, "the disk of the host is full"),
    ((E.EXIT, E.MEMORY), {}, Blame.HOST, "the memory of the host ran out"),
    ((E.EXIT, E.DISK_ERROR), {}, Blame.HOST, "the disk of the host has errors"),
    (
        (E.EXIT, E.FETCH),
        {"DISTFILE": "foo-1.0.tar.gz", "SITES": "https://example.org/"},
        Blame.INFRASTRUCTURE,
        "foo-1.0.tar.gz could not be had from https://example.org/",
    ),
    (
        (E.EXIT, E.CHECKSUM),
        {"DISTFILE": "foo-1.0.tar.gz"},
        Blame.INFRASTRUCTURE,
        "foo-1.0.tar.gz has another checksum",
    ),
    (
        (E.EXIT, E.CHECKSUM),
        {"DISTFILE": "foo-1.0.tar.gz", "SITES": "a.example b.example"},
        Blame.INFRASTRUCTURE,
        "foo-1.0.tar.gz has another checksum; it came from a.example b.example",
    ),
    ((E.EXIT, E.FETCH, E.NO_SPACE), {}, Blame.HOST, "the disk of the host is full"),
    (
        (E.EXIT, E.UNLISTED),
        {"REQUIREMENT": "bar>=1"},
        Blame.PACKAGE,
        "asks for bar>=1, which it does not list",
    ),
    (
        (E.EXIT, E.REQUIREMENT),
        {"REQUIREMENT": "bar-1.0"},
        Blame.PACKAGE,
        "bar-1.0 cannot be installed",
    ),
    (
        (E.EXIT, E.REQUIREMENT, E.DAMAGED),
        {"REQUIREMENT": "bar-1.0"},
        Blame.INFRASTRUCTURE,
        "the file of bar-1.0 is damaged",
    ),
    ((E.TIME_LIMIT,), {"LIMIT": "600"}, Blame.PACKAGE, "took longer than 600 s"),
    (
        (E.STAGE_TIME_LIMIT,),
        {"LIMIT": "60"},
        Blame.PACKAGE,
        "took longer than 60 s in one stage",
    ),
    ((E.LOG_LIMIT,), {"LIMIT": "9"}, Blame.PACKAGE, "wrote a log of more than 9 bytes"),
    (
        (E.NO_PACKAGE,),
        {},
        Blame.PACKAGE,
        "passed all stages without making a package file",
    ),
    ((E.SANDBOX,), {}, Blame.HOST, "the sandbox could not be set up"),
    ((E.TOOL,), {"TOOL": "bmake"}, Blame.HOST, "the host lacks bmake"),
    ((E.TOOL,), {}, Blame.HOST, "the host lacks a tool"),
    ((E.KIT,), {}, Blame.INFRASTRUCTURE, "the bootstrap kit cannot be used"),
    ((E.TREE,), {}, Blame.INFRASTRUCTURE, "the tree has no such package directory"),
    ((E.BAD_JOB,), {}, Blame.INFRASTRUCTURE, "the host refused the job's description"),
    ((E.ORDER, E.SIGNAL), {"SIGNAL": "15"}, Blame.OPERATOR, "was told to end"),
    ((E.SIGNAL, E.EXIT), {"SIGNAL": "9"}, Blame.HOST, "was killed by signal 9"),
    ((E.SIGNAL,), {"SIGNAL": "15"}, Blame.HOST, "was killed by signal 15"),
    ((E.SIGNAL,), {"SIGNAL": "11"}, Blame.PACKAGE, "was killed by signal 11"),
    ((E.SIGNAL,), {}, Blame.PACKAGE, "was killed by signal (unknown)"),
]


@pytest.mark.parametrize(("evidence", "facts", "blame", "message"), RESULTS)
def test_results(evidence, facts, blame, message):
    judgement = judge(failed(*evidence, **facts))
    assert (judgement.blame, judgement.message) == (blame, message)


def test_every_piece_of_evidence_is_judged():
    listed = {evidence for evidence, _, _ in rules.EVIDENCE} | {E.SIGNAL}
    assert listed == set(Evidence)


@pytest.mark.parametrize("evidence", list(Evidence))
def test_evidence_alone_is_enough(evidence):
    assert judge(failed(evidence, outcome=Outcome.UNABLE, stage="")).message


@pytest.mark.parametrize(
    ("evidence", "said", "message"),
    [
        (E.NO_SPACE, "cc: No space", "the disk of the host is full (cc: No space)"),
        (
            E.NO_SPACE,
            "build ended with status 1: cc: No space",
            "the disk of the host is full (cc: No space)",
        ),
        (E.EXIT, "build ended with status 1: x.c:4: error", "exit status 1: x.c:4: error"),
        (E.EXIT, "build ended with status 1", "exit status 1"),
        (E.EXIT, "exit status 1", "exit status 1"),
        (E.TIME_LIMIT, "build was ended by the time-limit of 60", "took longer than 60 s"),
        (E.SIGNAL, "build was killed by signal 9", "was killed by signal 9"),
        (
            E.SANDBOX,
            "unshare: not permitted",
            "the sandbox could not be set up (unshare: not permitted)",
        ),
    ],
)
def test_what_the_host_says_is_added_once(evidence, said, message):
    told = judge(failed(evidence, message=said, LIMIT="60", SIGNAL="9"))
    assert told.message == message


def test_a_brace_in_what_the_host_says_is_only_text():
    told = judge(failed(E.FETCH, DISTFILE="{0}", SITES="{SITES}"))
    assert told.message == "{0} could not be had from {SITES}"


def test_nothing_known_is_never_the_package():
    for outcome in (Outcome.ENDED, Outcome.UNABLE):
        assert judge(failed(outcome=outcome, stage="")).blame is Blame.HOST


CASES = [
    (Gone("rebooted"), Blame.HOST, "rebooted"),
    (Gone("died"), Blame.HOST, "left no result"),
    (Gone(), Blame.HOST, "left no result"),
    (Stopped("stopped by the operator"), Blame.OPERATOR, "stopped by the operator"),
    (Overdue("building", 7200.4), Blame.HOST, "building took longer than 7200 s"),
    (Overdue("sending", 60), Blame.HOST, "sending took longer than 60 s"),
    (Overdue("fetching", 60), Blame.HOST, "fetching took longer than 60 s"),
    (NotKept("No space left on device"), Blame.INFRASTRUCTURE, "No space left on device"),
    (NoRequirement("bar-1.0", "00ff"), Blame.INFRASTRUCTURE, "bar-1.0 is not in the repository"),
    (FlawedFile(Flaw.CHECKSUM, "x"), Blame.INFRASTRUCTURE, "x"),
    (FlawedFile(Flaw.DAMAGED, "x"), Blame.HOST, "x"),
    (FlawedFile(Flaw.FOREIGN, "x"), Blame.PACKAGE, "x"),
    (FlawedFile(Flaw.FORBIDDEN, "x"), Blame.PACKAGE, "x"),
    (EngineTrouble(Step.START, "full", "host h: no space"), Blame.HOST, "no space"),
    (EngineTrouble(Step.FETCH, "full", "no space here"), Blame.INFRASTRUCTURE, "no space here"),
    (EngineTrouble(Step.FETCH, "broken", "x"), Blame.INFRASTRUCTURE, "x"),
    (EngineTrouble(Step.START, "unreachable", "x"), Blame.HOST, "x"),
]


@pytest.mark.parametrize(("case", "blame", "part"), CASES)
def test_other_cases(case, blame, part):
    judgement = judge(case)
    assert judgement.blame is blame
    assert part in judgement.message


def test_every_kind_of_engine_trouble_is_judged():
    wanted = {(step, kind.value) for step in Step for kind in Kind}
    assert set(rules.ENGINE) == wanted
    assert set(rules.FLAWS) == set(Flaw)
