"""A distfile that cannot be had, over ssh, from sites that fail in the ways of real ones."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from over_ssh import Session
from sshd_hosts import ROOT, MakeCluster, PortCluster

pytestmark = pytest.mark.timeout(300)

CONTENT = (ROOT / "examples/pkgsrc/distfiles/calc-1.3.c").read_bytes()
FETCH = """#!/bin/sh
exec busybox wget -q -O "$2" "$1"
"""


class Site(BaseHTTPRequestHandler):
    """What a site does is the first word of the path."""

    def do_GET(self) -> None:
        deed = self.path.split("/")[1]
        if deed == "missing":
            self.send_error(404)
            return
        length = len(CONTENT) // 2 if deed == "short" else len(CONTENT)
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        body = CONTENT.swapcase() if deed == "other" else CONTENT
        self.wfile.write(body[: len(CONTENT) // 2] if deed in ("short", "cut") else body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@dataclass(frozen=True)
class Case:
    """Where a package's distfile is sought, and what is said if it was in vain."""

    sites: tuple[str, ...]
    said: str = ""  # how the message begins, without the name of the distfile


@pytest.fixture
def site() -> Iterator[str]:
    """Address of a site, with its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def closed() -> Iterator[str]:
    """An address at which nobody listens, and nobody else will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def write(tree: Path, name: str, sites: tuple[str, ...]) -> None:
    """A package like calc with a distfile of its own name."""
    package = tree / "math" / name
    shutil.copytree(tree / "math/calc", package)
    places = " ".join(f"http://{one}/" for one in sites)
    makefile = (package / "Makefile").read_text()
    makefile = makefile.replace("calc-1.3", f"{name}-1.3")
    makefile = makefile.replace(
        "${MASTER_SITE_LOCAL}", f"{places}\nFETCH_CMD=\t${{PKGSRCDIR}}/fetch"
    )
    (package / "Makefile").write_text(makefile)
    digest = hashlib.sha256(CONTENT).hexdigest()
    (package / "distinfo").write_text(
        f"SHA256 ({name}-1.3.c) = {digest}\nSize ({name}-1.3.c) = {len(CONTENT)} bytes\n"
    )
    with (tree / "math/Makefile").open("a") as category:
        category.write(f"SUBDIR+=\t{name}\n")


@pytest.fixture
def session(make_cluster: MakeCluster, room: Path) -> Iterator[Session]:
    ports = make_cluster("p1 p2", PortCluster)
    with contextlib.closing(Session(ports, room)) as session:
        fetch = session.tree.path / "fetch"
        fetch.write_text(FETCH)
        fetch.chmod(0o755)
        yield session


def test_a_distfile_that_cannot_be_had_is_nobodys_package_failing(
    session: Session, site: str, closed: str
) -> None:
    cases: dict[str, Case] = {
        "fine": Case((closed, f"{site}/missing", f"{site}/fine")),
        "missing": Case(
            (closed, f"{site}/missing"),
            f"could not be had from {closed} {site} (wget: server returned error",
        ),
        "cut": Case((f"{site}/cut",), f"could not be had from {site} ("),
        "short": Case((f"{site}/short",), f"has another checksum; it came from {site}"),
        "other": Case((f"{site}/other",), f"has another checksum; it came from {site}"),
    }
    for name, case in cases.items():
        write(session.tree.path, f"{name}dist", case.sites)
    run = session.start("--select", " ".join(f"math/{name}dist" for name in cases))
    assert session.ends(run, 240) == 1, session.story()
    assert "finedist-1.3" in session.packages(), session.story()
    attempts = session.attempts()
    for name, case in cases.items():
        mine = [one for one in attempts if one["pkgname"] == f"{name}dist-1.3"]
        if name == "fine":
            assert [one["outcome"] for one in mine] == ["built"]
            continue
        assert {one["blame"] for one in mine} == {"infrastructure"}, (name, mine)
        assert len(mine) == 3  # it is tried again, and not for ever
        for one in mine:
            assert one["stage"] == "checksum"
            log = session.seen / "logs/example" / one["pkgname"] / one["id"] / "checksum.log"
            told = f"{one['message']}\n{log.read_text() if log.exists() else 'no log'}"
            assert told.startswith(f"{name}dist-1.3.c {case.said}"), told
    for name in ("missing", "other"):
        assert f"{name}dist-1.3.c" in session.screen
