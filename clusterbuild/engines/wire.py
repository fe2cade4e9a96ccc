"""What crosses between an engine and the scripts on the host: text to values, and back.

Whatever a host says is checked here; NonsenseError tells of what cannot be right. The other
side of it is described in clusterbuild/on_host/README.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from types import MappingProxyType

from clusterbuild.core.result import (
    SCAN,
    STAGES,
    Evidence,
    JobResult,
    Outcome,
    PackageFile,
    StageTime,
)
from clusterbuild.engines import HostFacts, JobSpec, JobState, Life, Scanned

#: A plain file name that is no option, not hidden, and leads nowhere.
FILE_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+,@~-]{0,254}")
ATTEMPT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FACT = re.compile(r"([A-Z][A-Z0-9_]*)='((?:[^']|'\\'')*)'")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCANNED_PATH = re.compile(r"\.|[A-Za-z0-9_+.][A-Za-z0-9_.+/-]{0,400}")
_NUMBER = re.compile(r"[0-9]{1,15}")
_SECONDS = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,6})?")
#: Longest text of one fact that is taken over.
_LONGEST = 2000
#: Facts of a result that go into fields of their own.
_FIELDS = "ATTEMPT OUTCOME STAGE EXIT MESSAGE PACKAGE SIZE SHA256 SLOT SANDBOX STARTED FINISHED END"


class NonsenseError(ValueError):
    """A host said something that cannot be."""


# --- to the host


def quote(name: str, value: str) -> str:
    """A line NAME='value'; raises ValueError for text that cannot be sent."""
    if not (value.isascii() and value.isprintable()):
        raise ValueError(f"{name.lower()} must be printable ASCII, and is {value!a}")
    return "{}='{}'\n".format(name, value.replace("'", "'\\''"))


def job_text(job: JobSpec, kit: str, *, tree: str, distdir: str, base_file: str = "") -> bytes:
    """The job file. `tree` and `distdir` are the host's paths.

    `kit` and `base_file` are the SHA256 of these files, or empty. Raises ValueError for text that
    cannot be sent.
    """
    lines = [
        quote(name, str(value))
        for name, value in (
            ("ATTEMPT", job.attempt),
            ("PKGNAME", "" if job.scan else job.pkgname),
            ("PKGPATH", job.pkgpath),
            ("TREE", tree),
            ("PREFIX", job.prefix),
            ("PKGDB", job.pkgdb),
            ("KIT", kit),
            ("MAKE", job.make),
            ("DISTDIR", distdir),
            ("MAKE_JOBS", job.make_jobs),
            ("BOOTSTRAP", "yes" if job.bootstrap else ""),
            ("USERGROUP_PHASE", job.usergroup_phase),
            ("USE_DESTDIR", job.use_destdir),
            ("BUILD_USER", job.build_user),
            ("SANDBOX", job.sandbox),
            ("BASE_DIR", job.base_dir),
            ("BASE_FILE", base_file),
            ("LAYER_SIZE", job.layer_size),
            ("SLOTS", job.slots),
            ("TIME_LIMIT", math.ceil(job.time_limit)),
            ("STAGE_TIME_LIMIT", math.ceil(job.stage_time_limit)),
            ("LOG_LIMIT", job.log_limit),
            ("SEARCH_PATH", job.search_path),
        )
        if value not in ("", 0)
    ]
    lines += [quote("VARIABLE", word) for word in job.variables]
    for file in job.requirements:
        how = "direct" if file.direct else "indirect"
        lines.append(
            quote("REQUIRE", f"{how} {file.pkgname} {file.sha256} {file.size} {file.suffix}")
        )
    for distfile in job.distfiles:
        lines.append(quote("DISTFILE", f"{distfile.name} {distfile.sha256} {distfile.size}"))
    lines += _scan_lines(job)
    return "".join(lines).encode("ascii")


def _scan_lines(job: JobSpec) -> list[str]:
    scan = job.scan
    if scan is None:
        return []
    return [
        quote("KIND", SCAN),
        quote("CACHE", scan.cache),
        quote("SCAN_TIME_LIMIT", str(max(1, math.ceil(scan.time_limit)))),
        quote("OUTPUT_LIMIT", str(scan.output_limit)),
        *(quote("SCAN", pkgpath) for pkgpath in scan.pkgpaths),
        *([] if scan.pkgpaths else [quote("ENUMERATE", "yes")]),
        *(quote("CATEGORY", category) for category in scan.categories),
    ]


# --- from the host


def _facts(text: bytes) -> Iterator[tuple[str, str]]:
    """NAME='value' lines; text is shortened, and what is not printable ASCII is replaced."""
    for line in text.decode("ascii", "backslashreplace").splitlines():
        match = _FACT.fullmatch(line)
        if match is None:
            raise NonsenseError(f"a line that is not NAME='value': {line[:80]!a}")
        value = match[2].replace("'\\''", "'")[:_LONGEST]
        yield match[1], value if value.isprintable() else ascii(value)


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise NonsenseError(f"not a number: {text[:80]!a}")
    return int(text)


def _seconds(text: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise NonsenseError(f"not a number of seconds: {text[:80]!a}")
    return float(text)


def host_facts(text: bytes) -> HostFacts:
    """What `probe` prints."""
    one: dict[str, str] = {}
    sandboxes: list[str] = []
    no_sandboxes: dict[str, str] = {}
    tools: dict[str, str] = {}
    for name, value in _facts(text):
        if name == "SANDBOX":
            sandboxes.append(value.split(" ")[0])
        elif name == "NO_SANDBOX":
            kind, _, why = value.partition(" ")
            no_sandboxes[kind] = why
        elif name == "TOOL":
            tool, _, path = value.partition(" ")
            tools[tool] = path
        else:
            one[name] = value
    if one.get("END") != "yes":
        raise NonsenseError("the end of what it says of itself is missing")
    return HostFacts(
        opsys=one.get("OPSYS", ""),
        os_version=one.get("OS_VERSION", ""),
        machine_arch=one.get("MACHINE_ARCH", ""),
        cores=_number(one.get("CORES") or "0"),
        memory=_number(one.get("MEMORY") or "0"),
        disk_free=_number(one.get("DISK_FREE") or "0"),
        sandboxes=tuple(sandboxes),
        tools=MappingProxyType(tools),
        boot_id=one.get("BOOT", ""),
        clock=_seconds(one.get("CLOCK", "")),
        user=one.get("USER", ""),
        no_sandboxes=MappingProxyType(no_sandboxes),
    )


def job_state(line: bytes) -> JobState | None:
    """A line of `look` or `watch`; None for one that tells of no job."""
    words = line.decode("ascii", "backslashreplace").split(" ")
    if words in (["end"], ["alive"]):
        return None
    if len(words) != 9 or words[0] != "job" or not ATTEMPT.fullmatch(words[1]):
        raise NonsenseError(f"not the state of a job: {line[:200]!a}")
    _, attempt, life, stage, age, size, pid, slot, reason = words
    if stage not in ("-", SCAN, *STAGES):
        raise NonsenseError(f"unknown stage {stage[:80]!a}")
    try:
        known = Life(life)
    except ValueError:
        raise NonsenseError(f"unknown state of a job: {life[:80]!a}") from None
    return JobState(
        attempt=attempt,
        life=known,
        stage="" if stage == "-" else stage,
        stage_seconds=float(_number(age)),
        log_size=_number(size),
        pid=_number(pid),
        slot=_number(slot),
        reason=reason if reason in ("died", "rebooted") else "",
    )


def job_states(text: bytes) -> list[JobState]:
    """All that `look` prints."""
    lines = text.splitlines()
    if not lines or lines[-1] != b"end":
        raise NonsenseError("the end of its list of jobs is missing")
    return [state for line in lines if (state := job_state(line)) is not None]


def _files(text: bytes) -> dict[str, bytes]:
    """What `tell` prints: files, each after a line "file NAME BYTES"."""
    files: dict[str, bytes] = {}
    while text:
        head, _, rest = text.partition(b"\n")
        words = head.decode("ascii", "backslashreplace").split(" ")
        if len(words) != 3 or words[0] != "file":
            raise NonsenseError(f"not the head of a file: {head[:200]!a}")
        size = _number(words[2])
        if len(rest) < size:
            raise NonsenseError(f"the end of {words[1][:80]!a} is missing")
        files[words[1]], text = rest[:size], rest[size:]
    return files


def scanned(text: bytes, after: int) -> tuple[str, list[Scanned]]:
    """What `scanned` prints: where the tree is, and what make said in each directory."""
    head, end, rest = text.partition(b"\nend\n")
    lines = head.decode("ascii", "backslashreplace").split("\n")
    if not end or not lines[0].startswith("tree "):
        raise NonsenseError("the table of what was scanned is not whole")
    found: list[Scanned] = []
    for line in lines[1:]:
        words = line.split(" ")
        if len(words) != 9 or words[0] != "scan" or not _SCANNED_PATH.fullmatch(words[2]):
            raise NonsenseError(f"not a line about a scan: {line[:200]!a}")
        number, status, out, said = (_number(words[at]) for at in (1, 3, 7, 8))
        if number <= (found[-1].number if found else after):
            raise NonsenseError(f"{words[2]!a} is number {number}, which was told before")
        found.append(
            Scanned(
                number=number,
                path=words[2],
                status=status,
                late=words[6] == "time",
                seconds=max(0.0, _seconds(words[5]) - _seconds(words[4])),
                out=rest[:out],
                said=rest[out : out + said],
            )
        )
        if len(rest) < out + said:
            raise NonsenseError(f"the end of what was said in {words[2]!a} is missing")
        rest = rest[out + said :]
    if rest:
        raise NonsenseError(f"{len(rest)} bytes that belong to no scan")
    return lines[0].removeprefix("tree "), found


def _stage_times(text: bytes) -> tuple[StageTime, ...]:
    """The ended stages of a marks file, whose last line may be torn where the host died."""
    times = []
    for line in text.decode("ascii", "backslashreplace").splitlines():
        words = line.split(" ")
        if words[0] != "end" or len(words) != 6 or words[1] not in STAGES:
            continue
        wall, cpu = _seconds(words[4]), _seconds(words[5])
        times.append(StageTime(words[1], max(0.0, wall), max(0.0, cpu), _number(words[3])))
    return tuple(times)


def _package(one: dict[str, str]) -> PackageFile:
    name, size, digest = (one.get(field, "") for field in ("PACKAGE", "SIZE", "SHA256"))
    if not FILE_NAME.fullmatch(name):
        raise NonsenseError(f"not the name of a package file: {name[:80]!a}")
    if not _SHA256.fullmatch(digest):
        raise NonsenseError(f"not a SHA256: {digest[:80]!a}")
    return PackageFile(name, _number(size), digest)


def job_result(attempt: str, text: bytes) -> JobResult:
    """The result of a job from what `tell` prints of it."""
    files = _files(text)
    one: dict[str, str] = {}
    evidence: set[Evidence] = set()
    for name, value in _facts(files.get("result", b"")):
        if name == "EVIDENCE":
            try:
                evidence.add(Evidence(value))
            except ValueError:
                raise NonsenseError(f"unknown evidence {value[:80]!a}") from None
        else:
            one[name] = value
    if one.get("END") != "yes" or one.get("ATTEMPT") != attempt:
        raise NonsenseError("its result is not whole, or another attempt's")
    try:
        outcome = Outcome(one.get("OUTCOME", ""))
    except ValueError:
        raise NonsenseError(f"unknown outcome {one['OUTCOME'][:80]!a}") from None
    stage = one.get("STAGE", "")
    if stage not in ("", SCAN, *STAGES):
        raise NonsenseError(f"unknown stage {stage[:80]!a}")
    return JobResult(
        attempt=attempt,
        outcome=outcome,
        stage=stage,
        exit=_number(one.get("EXIT") or "0"),
        message=one.get("MESSAGE", "")[:500],
        evidence=frozenset(evidence),
        facts=MappingProxyType({k: v for k, v in one.items() if k not in _FIELDS.split()}),
        package=_package(one) if outcome is Outcome.BUILT else None,
        summary=files.get("summary", b""),
        stages=_stage_times(files.get("marks", b"")),
        slot=_number(one.get("SLOT") or "0"),
        sandbox=one.get("SANDBOX", ""),
        started=_seconds(one.get("STARTED") or "0"),
        finished=_seconds(one.get("FINISHED") or "0"),
    )
