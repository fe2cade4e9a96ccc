"""Who is at fault when a job was not built: one function, a table of cases.

The first case whose evidence was seen decides. Rules behind the order: what the host or
the network did to a job comes before what the package seems to have done, because a full
disk also makes compilers fail; a stage's own exit comes last, because it is what is left
when nothing else is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from clusterbuild.core.result import Evidence, JobResult, Outcome


class Blame(Enum):
    """Whose fault it is; the values are the words people see."""

    PACKAGE = "package"  # not repeated until something changes
    HOST = "host"  # the job is open again
    INFRASTRUCTURE = "infrastructure"  # network, a download site, the dispatcher: open again
    OPERATOR = "operator"  # somebody stopped it: open again


class Flaw(Enum):
    """What is wrong with a package file that came from a host."""

    CHECKSUM = "checksum"  # it is not the file that the host has
    DAMAGED = "damaged"  # it cannot be read to its end
    FOREIGN = "foreign"  # it is not the package that was asked for
    FORBIDDEN = "forbidden"  # it holds what no package may hold


class Step(Enum):
    """What the dispatcher was doing with a job when an engine could not go on."""

    START = "start"
    FETCH = "fetch"


@dataclass(frozen=True)
class Gone:
    """The job runs no more and left no result; `reason` is the host's word for it."""

    reason: str = ""


@dataclass(frozen=True)
class Stopped:
    """Somebody stopped it; `why` in words."""

    why: str


@dataclass(frozen=True)
class Overdue:
    """It was in `phase` for `seconds` and its host did not end it."""

    phase: str
    seconds: float


@dataclass(frozen=True)
class EngineTrouble:
    """An engine could not do a step; `kind` is a value of engines.Kind."""

    step: Step
    kind: str
    text: str


@dataclass(frozen=True)
class FlawedFile:
    """The package file that was brought here is not kept."""

    flaw: Flaw
    text: str


@dataclass(frozen=True)
class NotKept:
    """The dispatcher could not keep what it was given."""

    text: str


@dataclass(frozen=True)
class NoRequirement:
    """A requirement that the grant names is not in the repository."""

    pkgname: str
    sha256: str


Case = JobResult | Gone | Stopped | Overdue | EngineTrouble | FlawedFile | NotKept | NoRequirement


@dataclass(frozen=True)
class Judgement:
    """Who is at fault, and one sentence for people."""

    blame: Blame
    message: str


#: Evidence in the order in which it decides; {NAME} is a fact of the result.
EVIDENCE: tuple[tuple[Evidence, Blame, str], ...] = (
    (Evidence.ORDER, Blame.OPERATOR, "was told to end"),
    (Evidence.NO_SPACE, Blame.HOST, "the disk of the host is full"),
    (Evidence.DISK_ERROR, Blame.HOST, "the disk of the host has errors"),
    (Evidence.MEMORY, Blame.HOST, "the memory of the host ran out"),
    (Evidence.SANDBOX, Blame.HOST, "the sandbox could not be set up"),
    (Evidence.TOOL, Blame.HOST, "the host lacks {TOOL}"),
    (Evidence.KIT, Blame.INFRASTRUCTURE, "the bootstrap kit cannot be used"),
    (Evidence.TREE, Blame.INFRASTRUCTURE, "the tree has no such package directory"),
    (Evidence.BAD_JOB, Blame.INFRASTRUCTURE, "the host refused the job's description"),
    (Evidence.DAMAGED, Blame.INFRASTRUCTURE, "the file of {REQUIREMENT} is damaged"),
    (Evidence.FETCH, Blame.INFRASTRUCTURE, "{DISTFILE} could not be had from {SITES}"),
    (Evidence.CHECKSUM, Blame.INFRASTRUCTURE, "{DISTFILE} has another checksum{FROM}"),
    (Evidence.UNLISTED, Blame.PACKAGE, "asks for {REQUIREMENT}, which it does not list"),
    (Evidence.REQUIREMENT, Blame.PACKAGE, "{REQUIREMENT} cannot be installed"),
    (Evidence.TIME_LIMIT, Blame.PACKAGE, "took longer than {LIMIT} s"),
    (Evidence.STAGE_TIME_LIMIT, Blame.PACKAGE, "took longer than {LIMIT} s in one stage"),
    (Evidence.LOG_LIMIT, Blame.PACKAGE, "wrote a log of more than {LIMIT} bytes"),
    (Evidence.NO_PACKAGE, Blame.PACKAGE, "passed all stages without making a package file"),
    # SIGNAL stands in _signalled.
    (Evidence.EXIT, Blame.PACKAGE, "exit status {EXIT}"),
)
#: Signals that a program does not get from its own mistakes: HUP INT KILL TERM.
FROM_OUTSIDE = frozenset({"1", "2", "9", "15"})

#: What an engine's trouble means, by step and engines.Kind.
ENGINE: dict[tuple[Step, str], Blame] = {
    (Step.START, "unreachable"): Blame.HOST,
    (Step.START, "refused"): Blame.HOST,
    (Step.START, "busy"): Blame.INFRASTRUCTURE,
    (Step.START, "full"): Blame.HOST,
    (Step.START, "broken"): Blame.HOST,
    (Step.START, "absent"): Blame.INFRASTRUCTURE,
    (Step.FETCH, "unreachable"): Blame.HOST,
    (Step.FETCH, "refused"): Blame.HOST,
    (Step.FETCH, "busy"): Blame.INFRASTRUCTURE,
    (Step.FETCH, "full"): Blame.INFRASTRUCTURE,  # what is full is the dispatcher's disk
    (Step.FETCH, "broken"): Blame.INFRASTRUCTURE,
    (Step.FETCH, "absent"): Blame.HOST,
}

#: What a package file's flaw means.
FLAWS: dict[Flaw, Blame] = {
    Flaw.CHECKSUM: Blame.INFRASTRUCTURE,
    # It was damaged where it was made, for it arrived as it was there.
    Flaw.DAMAGED: Blame.HOST,
    Flaw.FOREIGN: Blame.PACKAGE,
    Flaw.FORBIDDEN: Blame.PACKAGE,
}

GONE = {
    "rebooted": "the host was rebooted",
    "died": "it was killed on the host and left no result",
}


#: What stands for a fact that the host did not tell.
UNTOLD = {
    "TOOL": "a tool",
    "REQUIREMENT": "a requirement",
    "DISTFILE": "a distfile",
    "SITES": "any site",
    "LIMIT": "(unknown)",
}
#: How a host's message begins where it only repeats what the evidence says.
REPEATED = re.compile(
    r"\S+ (ended with status \d+(: )?|was ended by the .*|was killed by signal .*)"
)


def _signalled(result: JobResult) -> Judgement | None:
    if Evidence.SIGNAL not in result.evidence:
        return None
    number = result.facts.get("SIGNAL", "")
    blame = Blame.HOST if number in FROM_OUTSIDE else Blame.PACKAGE
    return Judgement(blame, f"was killed by signal {number or '(unknown)'}")


def _of_result(result: JobResult) -> Judgement:
    sites = result.facts.get("SITES")
    origin = f"; it came from {sites}" if sites else ""
    facts = {**UNTOLD, **result.facts, "EXIT": str(result.exit), "FROM": origin}
    for evidence, blame, text in EVIDENCE:
        if evidence is Evidence.EXIT and (judgement := _signalled(result)) is not None:
            return judgement
        if evidence in result.evidence:
            return Judgement(blame, text.format_map(facts))
    if result.outcome is Outcome.FAILED:
        return Judgement(Blame.PACKAGE, f"exit status {result.exit}")
    if result.outcome is Outcome.BUILT:
        return Judgement(Blame.PACKAGE, "was built, but not kept")
    return Judgement(Blame.HOST, "was ended on the host by somebody else")


def _described(result: JobResult) -> Judgement:
    """With what else the host said. The stage is told apart."""
    judgement = _of_result(result)
    said = REPEATED.sub("", result.message, count=1).strip()
    if not said or said in judgement.message:
        return judgement
    plain = judgement.message.startswith("exit status")
    message = f"{judgement.message}: {said}" if plain else f"{judgement.message} ({said})"
    return Judgement(judgement.blame, message)


def judge(case: Case) -> Judgement:
    """Who is at fault, from what was seen."""
    match case:
        case JobResult():
            return _described(case)
        case Gone():
            return Judgement(Blame.HOST, GONE.get(case.reason, GONE["died"]))
        case Stopped():
            return Judgement(Blame.OPERATOR, case.why)
        case Overdue():
            # The package's own time limits are kept by the host, and are evidence.
            return Judgement(Blame.HOST, f"{case.phase} took longer than {case.seconds:.0f} s")
        case EngineTrouble():
            return Judgement(ENGINE[case.step, case.kind], case.text)
        case FlawedFile():
            return Judgement(FLAWS[case.flaw], f"the package file is not kept: {case.text}")
        case NotKept():
            return Judgement(Blame.INFRASTRUCTURE, f"the dispatcher cannot keep it: {case.text}")
        case NoRequirement():
            return Judgement(
                Blame.INFRASTRUCTURE,
                f"requirement {case.pkgname} is not in the repository (SHA-256 {case.sha256})",
            )
