"""A tiny tree with a kit and package tools in sh, and the scripts of on_host run by hand."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

#: Shells the scripts must work in: name, and the program with the arguments that make it one.
SHELLS = ("dash", "mksh", "yash", "busybox")

PKG_ADD = """#!/bin/sh
# pkg_add -K DB NAME|FILE...: with what it requires, from PKG_PATH.
[ "$1" = -K ] && db=$2 && shift 2
for name; do
    case $name in
    */*) file=$name ;;
    *) file=$PKG_PATH/$name.tgz ;;
    esac
    base=${file##*/}; base=${base%.tgz}
    [ ! -d "$db/$base" ] || continue
    [ -f "$file" ] || { echo "pkg_add: no pkg found for '$name', sorry." >&2; exit 1; }
    tmp=$(mktemp -d) || exit 1
    (cd "$tmp" && gzip -dc "$file" | tar xf -) || { echo 'Read error' >&2; exit 1; }
    for need in $(cat "$tmp/+REQUIRES"); do "$0" -K "$db" "$need" || exit 1; done
    mkdir -p "$db/$base" '@PREFIX@/share' && cp "$tmp/+REQUIRES" "$db/$base/" &&
        cp "$tmp/file" "@PREFIX@/share/$base" || exit 1
    rm -rf "$tmp"
done
"""
PKG_DELETE = """#!/bin/sh
[ "$1" = -K ] && db=$2 && shift 2
[ -d "$db/$1" ] || { echo "pkg_delete: no package $1" >&2; exit 1; }
rm -rf "$db/$1" "@PREFIX@/share/$1"
"""
PKG_INFO = """#!/bin/sh
[ "$1" = -K ] && db=$2 && shift 2
base=${2##*/}
printf 'PKGNAME=%s\\nOPSYS=Test\\n\\n' "${base%.tgz}"
"""
#: What every package includes: the targets a build calls.
FAKE_MK = """
SHELL=/bin/sh
WRKDIR=${WRKOBJDIR}/${.CURDIR:H:T}/${.CURDIR:T}/work
STAGE_PKGFILE=${WRKDIR}/.packages/${PKGNAME}.tgz
DO_CHECKSUM?=:
DO_CONFIGURE?=:
DO_BUILD?=echo built > file
DO_PACKAGE?=:
.PHONY: clean checksum configure all stage-install stage-package-create show-var create-usergroup
clean:
\trm -rf ${WRKDIR}
checksum:
\t@${DO_CHECKSUM}
configure:
\t@mkdir -p ${WRKDIR} && cd ${WRKDIR} && { ${DO_CONFIGURE}; }
all:
\t@cd ${WRKDIR} && { ${DO_BUILD}; }
create-usergroup:
\t@echo usergroup
stage-install:
\t@cd ${WRKDIR} && mkdir -p dest && cp file dest/
stage-package-create:
\t@cd ${WRKDIR} && mkdir -p .packages && printf '%s\\n' ${REQUIRES} > dest/+REQUIRES && \\
\t(cd dest && tar cf - +REQUIRES file | gzip > ${STAGE_PKGFILE}) && { ${DO_PACKAGE}; }
show-var:
\t@echo ${${VARNAME}}
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class FakeTree:
    """A tree of fake packages at `root`, built at `prefix`, with its kit."""

    def __init__(self, root: Path, prefix: Path) -> None:
        self.root = root
        self.prefix = prefix
        (root / "mk").mkdir(parents=True)
        (root / "mk" / "fake.mk").write_text(FAKE_MK)
        self.kit = root / "kit.tgz"
        with tarfile.open(self.kit, "w:gz") as tar:
            for directory in (f".{prefix}", f".{prefix}/sbin"):
                member = tarfile.TarInfo(directory)
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(member)
            for name, text in (
                ("pkg_add", PKG_ADD),
                ("pkg_delete", PKG_DELETE),
                ("pkg_info", PKG_INFO),
            ):
                data = text.replace("@PREFIX@", str(prefix)).encode()
                member = tarfile.TarInfo(f".{prefix}/sbin/{name}")
                member.size = len(data)
                member.mode = 0o755
                tar.addfile(member, io.BytesIO(data))

    def package(self, name: str, requires: Iterable[str] = (), **variables: str) -> str:
        """Adds test/NAME, of which version 1.0 is built; returns its pkgpath."""
        directory = self.root / "test" / name
        directory.mkdir(parents=True)
        lines = [f"PKGNAME={name}-1.0", f"REQUIRES={' '.join(requires)}"]
        lines += [f"{key}={value}" for key, value in variables.items()]
        lines.append('.include "../../mk/fake.mk"')
        (directory / "Makefile").write_text("\n".join(lines) + "\n")
        return f"test/{name}"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def facts(text: str) -> dict[str, str]:
    """NAME='value' lines; of a name that stands several times, the values with blanks between."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        assert value.startswith("'") and value.endswith("'"), line
        value = value[1:-1].replace("'\\''", "'")
        found[name] = f"{found[name]} {value}" if name in found else value
    return found


def running(word: str) -> list[int]:
    """The processes, in any namespace, that have `word` as an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words:
            found.append(int(path.parent.name))
    return found


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits for something that must come to be."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.02)


def shell_directory(where: Path, shell: str) -> Path:
    """A directory with `shell` as sh; fails or skips if there is no such shell here."""
    program = shutil.which(shell)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(f"{shell} is not installed, and in CI it must be")
        pytest.skip(f"{shell} is not installed")
    where.mkdir(parents=True, exist_ok=True)
    (where / "sh").symlink_to(program)
    return where


def busybox_directory(where: Path) -> Path:
    """A directory with busybox's tools and nothing else; fails or skips if there is no busybox."""
    if where.exists():
        return where
    program = (shell_directory(where, "busybox") / "sh").rename(where / "busybox").resolve()
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    for name in {*listed.stdout.split()} - {"sh", "ash", "hush", "[[", "busybox"}:
        (where / name).symlink_to(program)
    return where


class OnHost:
    """The scripts of on_host, run in one shell against one base directory."""

    def __init__(
        self,
        base: Path,
        shell: Path,
        scripts: Path,
        path: str = "",
        before: Sequence[str] = (),
    ) -> None:
        self.base = base
        self.shell = shell
        self.scripts = scripts
        self.path = path or f"{shell.parent}:/usr/bin:/bin:/usr/sbin:/sbin"
        self.before = tuple(before)
        base.mkdir(parents=True, exist_ok=True)
        (base / "files").mkdir(exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": self.path,
            "CLUSTERBUILD_PATH": self.path,
            "CLUSTERBUILD_SH": str(self.shell),
            "HOME": "/nonexistent",
        }

    def command(self, script: str, *words: str) -> list[str]:
        return [*self.before, str(self.shell), str(self.scripts / script), str(self.base), *words]

    def run(
        self, script: str, *words: str, text: str = "", status: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script; asserts its exit status unless that is None."""
        done = subprocess.run(
            self.command(script, *words),
            input=text,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
            check=False,
            start_new_session=True,
        )
        if status is not None:
            assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
        return done

    def popen(self, script: str, *words: str) -> subprocess.Popen[str]:
        """Starts a script with pipes to it and from it."""
        return subprocess.Popen(
            self.command(script, *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment,
            start_new_session=True,
        )

    def keep(self, path: Path) -> str:
        """Puts a file among those kept by digest; returns the digest."""
        digest = sha256(path)
        target = self.base / "files" / digest
        if not target.exists():
            shutil.copyfile(path, target)
        return digest

    def job(self, attempt: str, tree: FakeTree, pkgpath: str, *more: str, **values: str) -> str:
        """The text of a job file; `more` are whole lines, `values` replace defaults."""
        fields = {
            "ATTEMPT": attempt,
            "PKGNAME": f"{pkgpath.rpartition('/')[2]}-1.0",
            "PKGPATH": pkgpath,
            "TREE": str(tree.root),
            "PREFIX": str(tree.prefix),
            "KIT": self.keep(tree.kit),
            "MAKE": "/usr/bin/bmake",
            **values,
        }
        lines = [f"{name}={quoted(value)}" for name, value in fields.items()]
        return "\n".join([*lines, *more]) + "\n"

    def require(self, path: Path, how: str = "direct") -> str:
        """A REQUIRE line for a package file."""
        name = path.name.removesuffix(".tgz")
        digest = self.keep(path)
        return f"REQUIRE='{how} {name} {digest} {path.stat().st_size} .tgz'"

    def start(self, attempt: str, text: str, status: int | None = 0) -> None:
        self.run("supervisor", "start", attempt, text=text, status=status)

    def directory(self, attempt: str) -> Path:
        return self.base / "jobs" / attempt

    def result(self, attempt: str, seconds: float = 30.0) -> dict[str, str]:
        """The result, when there is one."""
        path = self.directory(attempt) / "result"
        until(path.exists, seconds)
        found = facts(path.read_text())
        assert found["END"] == "yes"
        return found

    def build(self, attempt: str, text: str) -> dict[str, str]:
        self.start(attempt, text)
        return self.result(attempt)

    def look(self) -> dict[str, list[str]]:
        """What `look` says: attempt to the words after it."""
        lines = self.run("look").stdout.splitlines()
        assert lines[-1] == "end"
        return {line.split()[1]: line.split()[2:] for line in lines[:-1]}

    def holders(self) -> list[str]:
        """Who holds a slot."""
        return sorted(path.read_text().strip() for path in self.base.glob("slots/*.holder"))

    def log(self, attempt: str, stage: str) -> str:
        return (self.directory(attempt) / "log" / f"{stage}.log").read_text(errors="replace")


MakeHost = Callable[..., OnHost]


def as_user(user: str) -> tuple[str, ...]:
    """The words before a command that run it as an unprivileged user; none if we are one."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
