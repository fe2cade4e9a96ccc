"""Every way in which scanning a directory may go wrong, from make to what people are shown.

A tree of the example's makefiles is scanned when all is well, when each of its packages is broken
in a way of its own, and when all are mended; into a daemon, by the command line.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from clusterdep import cli

ROOT = Path(__file__).parents[2]

GOOD = """\
DISTNAME=	{name}-1.0
CATEGORIES=	trial
DISTFILES=	# empty
MAINTAINER=	trial@example.org
COMMENT=	Is well
LICENSE=	public-domain
{more}
.include "../../mk/bsd.pkg.mk"
"""
#: What make would print of a good package, from a recipe.
RECORD = "printf 'PKGNAME=%s-1.0\\nALL_DEPENDS=\\n' {name}"
#: Makes two variants of a package: all of it with the first, then all of it with the second.
VARIANTS = """\
TINYLANG_VERSIONS_ACCEPTED=	13 12
TINYLANG_VERSION_DEFAULT=	13
TINYLANG_VERSION_REQD?=		13
PKGNAME=	tl${{TINYLANG_VERSION_REQD}}-{name}-1.0
"""


def recipe(*commands: str) -> str:
    """A Makefile whose pbulk-index is these commands."""
    return "pbulk-index:\n" + "".join(f"\t@{command}\n" for command in commands)


def plain(name: str, more: str = "") -> str:
    """A Makefile of a package with which nothing is wrong; `more` are lines of it."""
    return GOOD.format(name=name, more=more.format(name=name))


@dataclass(frozen=True)
class Lost:
    """A directory of which nothing can be used, and how that is told."""

    makefile: str
    why: str  # in the first line of the error
    said: str = ""  # by make, in the second


@dataclass(frozen=True)
class Kept:
    """A directory with a record, and what its package is."""

    makefile: str
    status: str
    reason: str = ""


FAILED = "make pbulk-index: it exited with status"
LOST = {
    "include": Lost('.include "../../mk/no-such.mk"\n', f"{FAILED} 1", "no-such.mk"),
    "syntax": Lost(".if defined(FOO)\nPKGNAME= foo-1.0\n", f"{FAILED} 1", "open conditional"),
    "error": Lost('.error "Python 26 is not accepted"\n', f"{FAILED} 1", "Python 26"),
    "half": Lost(
        plain("half", VARIANTS + '.if ${{TINYLANG_VERSION_REQD}} == 12\n.error "no 12"\n.endif\n'),
        f"{FAILED} 1",
        "no 12",
    ),
    "notarget": Lost("all:\n", f"{FAILED} 2", "don't know how to make pbulk-index"),
    "bare": Lost("", f"{FAILED} 2", "don't know how to make pbulk-index"),
    "vanishes": Lost("", "trial/vanishes: No such file or directory"),
    "noname": Lost(
        plain("noname").replace("DISTNAME=	noname-1.0", ""),
        "make pbulk-index: record 1 (trial/noname): PKGNAME is empty",
    ),
    "onebad": Lost(
        recipe(RECORD.format(name="onebad"), "printf 'PKGNAME=a b-1\\nALL_DEPENDS=\\n'"),
        "record 2 (trial/onebad): PKGNAME a b-1 has something else in it than printable ASCII",
    ),
    "silent": Lost(recipe("true"), "make pbulk-index printed no record"),
    "stray": Lost(recipe("echo all is well"), "no line begins with PKGNAME="),
    "nul": Lost(recipe(RECORD.format(name="nul") + "; printf '\\0'"), "printed a NUL byte"),
    "killed": Lost(recipe("kill -KILL $$PPID"), "it was killed by signal 9"),
    "longrecord": Lost(
        recipe(
            RECORD.format(name="longrecord"), "printf X=; head -c 1100000 /dev/zero | tr '\\0' x"
        ),
        "it is longer than 1048576 bytes",
    ),
    "endless": Lost(recipe(RECORD.format(name="endless"), "yes"), "it printed more than 15728640"),
    "elsewhere": Lost(
        recipe(RECORD.format(name="elsewhere"), "echo PKG_LOCATION=devel/other"),
        "PKG_LOCATION is devel/other, but it was scanned in trial/elsewhere",
    ),
    # A line end that the shell's echo makes of \n, with what looks like another record after it.
    "injected": Lost(
        recipe(
            RECORD.format(name="injected"),
            r"""dash -c 'echo "RESTRICTED=see\nPKGNAME=evil-1.0\nfor more"'""",
        ),
        "record 2 (trial/injected): it has no ALL_DEPENDS line",
    ),
}

ODD = r"""it's "half" `done` \n in C:\new and has an unbalanced " too"""
KEPT = {
    "shellfails": Kept(plain("shellfails", "X!= echo no such host >&2; exit 3\n"), "open"),
    "warns": Kept(plain("warns", ".warning careful\n.info look\n"), "open"),
    "halftoken": Kept(
        plain("halftoken", "DEPENDS+= half-1.0\n"),
        "unresolved",
        "malformed dependency half-1.0: it has no :../../category/package after the pattern",
    ),
    "splittoken": Kept(
        plain("splittoken", "DEPENDS+= good>=1 :../../trial/good\n"),
        "unresolved",
        "malformed dependency good>=1: it has no :../../category/package after the pattern; "
        "malformed dependency :../../trial/good: it has no pattern before the colon",
    ),
    "nodirectory": Kept(
        plain("nodirectory", "DEPENDS+= py-cycler-[0-9]*:../../trial/py-cycler\n"),
        "unresolved",
        "no package matches py-cycler-[0-9]*",
    ),
    "skipped": Kept(
        plain("skipped", 'PKG_SKIP_REASON+= "not for this machine"\n'),
        "skipped",
        '"not for this machine"',
    ),
    "failing": Kept(plain("failing", "BROKEN= since 1999\n"), "prefailed", "is marked as broken"),
    "both": Kept(
        plain("both", 'PKG_SKIP_REASON+= "not here"\nBROKEN= anywhere\n'), "skipped", '"not here"'
    ),
    "odd": Kept(plain("odd", f"PKG_FAIL_REASON= {ODD.replace('{', '{{')}\n"), "prefailed", ODD),
    "latin": Kept(plain("latin", "PKG_FAIL_REASON= \udce9t\udce9\n"), "prefailed", r"\xe9t\xe9"),
    "licence": Kept(
        plain("licence").replace("public-domain", "shrinkwrap-license"),
        "prefailed",
        '"licence-1.0 has an unacceptable license condition: "  "    "shrinkwrap-license',
    ),
    # \n ends a line, \c all that would be printed, with the line's own end.
    "echo": Kept(
        recipe(
            RECORD.format(name="echo"),
            r"""dash -c 'echo "PKG_FAIL_REASON=first\nsecond\tthird"'""",
            r"""dash -c 'echo "RESTRICTED=cut\c here"'""",
            "echo NO_BIN_ON_FTP=no",
        ),
        "prefailed",
        "first",
    ),
    "twin": Kept(
        plain("twin").replace("twin-1.0", "good-1.0"),
        "skipped",
        "an earlier record has this PKGNAME",
    ),
}
#: What requires others.
ON = {
    "onlost": plain("onlost", "DEPENDS+= include-[0-9]*:../../trial/include\n"),
    "onhalf": plain("onhalf", "DEPENDS+= tl13-half-[0-9]*:../../trial/half\n"),
    "onnever": plain("onnever", "DEPENDS+= never-[0-9]*:../../trial/never\n"),
}
NEVER = '.error "it never was well"\n'


@dataclass
class Answers:
    """What the command line says of the trial after one scan."""

    scan: str  # on standard error
    status: str
    #: Each by the name of a directory.
    packages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    show: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  # events of the scan

    def statuses(self) -> dict[str, list[str]]:
        """Of all packages."""
        return {name: [p["status"] for p in found] for name, found in self.packages.items()}


class Trial:
    """A tree, and a daemon with a profile of it."""

    def __init__(self, room: Path) -> None:
        self.tree = room / "tree"
        self.state = room / "state"
        shutil.copytree(ROOT / "examples/pkgsrc/mk", self.tree / "mk")
        self._event = 0

    def write(self, name: str, makefile: str) -> None:
        directory = self.tree / "trial" / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "Makefile").write_bytes(makefile.encode("utf-8", "surrogateescape"))

    def categories(self, names: list[str]) -> None:
        """Lists the packages in their order."""
        for path, words in (("Makefile", ["trial"]), ("trial/Makefile", names)):
            depth = "../" * path.count("/")
            lines = [f"SUBDIR+=\t{word}" for word in words]
            lines.append(f'.include "{depth}mk/bsd.pkg.subdir.mk"')
            (self.tree / path).write_text("\n".join(lines) + "\n")

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output and error of a command."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(["--state", str(self.state), *words])
        return code, out.getvalue(), err.getvalue()

    def asked(self, *words: str) -> str:
        """What a command says that has to succeed."""
        code, out, err = self.run(*words)
        assert code == 0, err
        return out

    def scan(self, names: list[str], *options: str) -> Answers:
        """Scans the tree, in the order of its list, and asks about everything."""
        code, out, err = self.run("scan", "trial", "--jobs", "1", *options)
        assert (code, out) == (0, ""), err
        answers = Answers(err, self.asked("status"))
        for line in self.asked("status", "--packages", "--json").splitlines():
            package = json.loads(line)
            answers.packages.setdefault(package["pkgpath"].partition("/")[2], []).append(package)
        for name in names:
            target = "tl13-half-1.0" if name == "half" else f"trial/{name}"
            for command, found in (("show", answers.show), ("why", answers.why)):
                _, out, err = self.run(command, target)
                found[name] = out + err
        for event in self.events():
            if event["kind"] == "scan-failed":
                answers.failures[event["subject"].partition("/")[2]] = event["cause"]
        return answers

    def events(self) -> list[dict[str, Any]]:
        """Those since the last call."""
        lines = self.asked("events", "--json", "--after", str(self._event)).splitlines()
        events = [json.loads(line) for line in lines]
        self._event = events[-1]["sequence"] if events else self._event
        return events


@dataclass
class Story:
    """The same packages well, broken, and well again."""

    trial: Trial
    well: Answers
    broken: Answers
    hung: str  # what the scan said of the one that hangs
    hung_pid: Path
    shown_hung: str
    mended: Answers


ORDER = ["good", "remover", *LOST, *KEPT, "hangs", "twins", *ON, "never"]
#: A process of its own that has the pipes, to be ended with make.
HANGS = "sleep 1000 & echo $$! >{pid}; echo waiting >&2; wait"


def write_well(trial: Trial) -> None:
    for name in ORDER:
        more = VARIANTS if name in ("half", "twins") else ""
        trial.write(name, ON.get(name) or plain(name, more))


def write_broken(trial: Trial) -> None:
    for name, case in {**LOST, **KEPT}.items():
        trial.write(name, case.makefile)
    trial.write("never", NEVER)
    trial.write("twins", plain("twins", VARIANTS.replace("tl${{TINYLANG_VERSION_REQD}}-", "")))
    (trial.tree / "trial/bare/Makefile").unlink()
    # It is still there when the categories are listed.
    gone = trial.tree / "trial/vanishes"
    trial.write("remover", plain("remover", f"X!= rm -rf {gone}; echo\n"))


@contextlib.contextmanager
def daemon(state: Path) -> Iterator[None]:
    state.mkdir(mode=0o700)
    process = subprocess.Popen(
        [sys.executable, "-m", "clusterdep", "serve", "--state", str(state)], cwd=ROOT
    )
    try:
        deadline = time.monotonic() + 60
        while not (state / "clusterdep.sock").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    room = tmp_path_factory.mktemp("trial")
    trial = Trial(room)
    trial.write("never", NEVER)
    with daemon(trial.state):
        trial.asked("profile", "set", "trial", "--tree", str(trial.tree))
        write_well(trial)
        trial.write("never", NEVER)
        trial.categories(ORDER)
        well = trial.scan(ORDER)
        write_broken(trial)
        broken = trial.scan(ORDER)
        pid = room / "pid"
        trial.write("hangs", recipe(HANGS.format(pid=pid)))
        _, _, hung = trial.run("scan", "trial", "trial/hangs", "--time-limit", "3")
        shown_hung = trial.run("show", "trial/hangs")[1]
        assert next(event["subject"] for event in trial.events()) == "trial/hangs"
        write_well(trial)
        mended = trial.scan(ORDER)
        yield Story(trial, well, broken, hung, pid, shown_hung, mended)


# --- all is well ------------------------------------------------------------------------------


def test_a_good_scan_clears_every_failure(story: Story) -> None:
    well, mended = story.well, story.mended
    assert mended.scan == ""
    assert mended.failures == {}
    assert "scan failed" not in mended.status
    expected = {name: ["open"] for name in ORDER} | {name: ["waiting"] for name in ON}
    expected |= {name: ["open", "open"] for name in ("half", "twins")}
    assert mended.statuses() == expected
    assert well.statuses() == {
        name: ["unresolved"] if name == "onnever" else statuses
        for name, statuses in expected.items()
        if name != "never"
    }
    for name in LOST:
        assert "scan error" not in mended.show[name], name
        assert "is open" in mended.why[name], name


# --- what is lost, and what of it stays -------------------------------------------------------


def after(text: str, mark: str) -> str:
    """What stands behind a mark, up to the line's end."""
    assert mark in text
    return text.partition(mark)[2].partition("\n")[0]


def test_exactly_what_failed_is_listed(story: Story) -> None:
    lines = [line for line in story.broken.status.splitlines() if "scan failed: " in line]
    listed = {after(line, "scan failed: trial/").partition(":")[0] for line in lines}
    assert listed == set(story.broken.failures) == {*LOST, "never"}
    assert set(story.well.failures) == {"never"}


@pytest.mark.parametrize("name", LOST)
def test_an_error_is_recorded_and_shown(story: Story, name: str) -> None:
    case, broken = LOST[name], story.broken
    for package in broken.packages[name]:
        assert package["status"] == "prefailed"
        assert package["reason"] == f"the last scan of trial/{name} failed: {broken.failures[name]}"
    assert broken.failures[name].startswith("make pbulk-index")
    for text in (
        broken.failures[name],
        broken.packages[name][0]["reason"],
        after(broken.why[name], "-1.0 is prefailed: "),
        after(broken.status, f"scan failed: trial/{name}: "),
        after(broken.scan, f"scan failed: trial/{name}: "),
        broken.show[name].partition("scan error")[2].partition("requirements")[0],
    ):
        assert case.why in text
        assert case.said in text
    assert f"PKG_LOCATION=trial/{name}\n" in broken.show[name]  # its last good record


def test_half_of_the_variants_is_none(story: Story) -> None:
    """What was printed before the failure counts for nothing: the last good records stay."""
    variants = {package["variant"]: package["status"] for package in story.broken.packages["half"]}
    assert variants == {
        "TINYLANG_VERSION_REQD=13": "prefailed",
        "TINYLANG_VERSION_REQD=12": "prefailed",
    }


def test_dependents_name_what_failed(story: Story) -> None:
    statuses, why = story.broken.statuses(), story.broken.why
    for name, on in (("onlost", "include-1.0"), ("onhalf", "tl13-half-1.0")):
        assert statuses[name] == ["blocked"]
        assert f"{on} is prefailed: the last scan of trial/" in why[name]
    assert statuses["onnever"] == ["unresolved"]
    assert "no package matches never-[0-9]*" in why["onnever"]


def test_what_was_never_scanned_well_says_why(story: Story) -> None:
    for answers in (story.well, story.broken):
        assert "never" not in answers.packages
        assert "trial/never has no packages: its scan failed" in answers.show["never"]
        assert "it never was well" in answers.show["never"]


def test_a_make_that_hangs_is_ended_with_its_processes(story: Story) -> None:
    for text in (story.hung, story.shown_hung):
        assert "it was ended because it took longer than 3 s" in text
        assert "waiting" in text
    with pytest.raises(ProcessLookupError):
        os.kill(int(story.hung_pid.read_text()), 0)


# --- what is not lost -------------------------------------------------------------------------


@pytest.mark.parametrize("name", KEPT)
def test_what_make_did_not_fail_for_is_kept(story: Story, name: str) -> None:
    case, broken = KEPT[name], story.broken
    (package,) = broken.packages[name]
    assert package["status"] == case.status
    assert case.reason in package["reason"]
    assert case.status in broken.show[name]
    assert case.reason in broken.show[name]
    assert case.reason in broken.why[name]
    assert "scan error" not in broken.show[name]


def test_both_reasons_are_in_the_record(story: Story) -> None:
    shown = story.broken.show["both"]
    assert 'PKG_SKIP_REASON="not here"\n' in shown
    assert 'PKG_FAIL_REASON="both-1.0 is marked as broken:" anywhere\n' in shown


def test_what_echo_made_of_a_value_does_no_harm(story: Story) -> None:
    """A line that is none is kept and means nothing; a line end that is lost costs the next key."""
    shown = story.broken.show["echo"]
    assert "PKG_FAIL_REASON=first\n  second\tthird\n" in shown
    assert "RESTRICTED=cutNO_BIN_ON_FTP=no\n" in shown


def test_variants_with_one_name(story: Story) -> None:
    """The first stands, with the default version, and the others are named."""
    first, second = story.broken.packages["twins"]
    assert first["variant"] == "TINYLANG_VERSION_REQD=13"
    assert [first["status"], second["status"]] == ["open", "skipped"]
    assert second["reason"] == "an earlier record has this PKGNAME"


def test_what_make_warns_of_is_said(story: Story) -> None:
    said = after(story.broken.scan, "make warns in trial/shellfails: ")
    assert "no such host" in said
    assert after(story.broken.scan, "make warns in trial/warns: ")
    warned = {line for line in story.broken.scan.splitlines() if "make warns" in line}
    assert len(warned) == 2


def test_others_are_unaffected(story: Story) -> None:
    for name in ("good", "remover", "hangs"):
        assert story.broken.statuses()[name] == ["open"]
        assert story.broken.packages[name] == story.well.packages[name]
