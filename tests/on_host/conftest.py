"""What the tests of the scripts share: a directory, a fake tree, and a host in each shell."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from onhost_fakes import SHELLS, FakeTree, MakeHost, OnHost, busybox_directory, shell_directory

from clusterbuild.engines.host import ON_HOST


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory that other users may enter too, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="onhost"))
    path.chmod(0o755)
    yield path
    subprocess.run(["chmod", "-R", "u+rwX", str(path)], check=False)
    shutil.rmtree(path)


@pytest.fixture
def tree(top: Path) -> FakeTree:
    return FakeTree(top / "tree", top / "prefix")


@pytest.fixture
def make_host(top: Path) -> Iterator[MakeHost]:
    """Makes hosts; whatever they still have at the end is cleaned, and nothing may be left."""
    hosts: list[OnHost] = []

    def make(
        shell: str = "dash", name: str = "base", busybox: bool = False, **more: object
    ) -> OnHost:
        directory = top / f"sh-{shell}"
        program = directory / "sh" if directory.exists() else None
        program = program or shell_directory(directory, shell) / "sh"
        if busybox:
            more["path"] = f"{directory}:{busybox_directory(top / 'busybox')}"
        scripts = top / "scripts"
        if not scripts.exists():
            shutil.copytree(ON_HOST, scripts)
        host = OnHost(top / name, program, scripts, **more)  # type: ignore[arg-type]
        hosts.append(host)
        return host

    yield make
    for host in hosts:
        for job in (host.base / "jobs").glob("*"):
            if (job / "job").exists():
                host.run("clean", job.name)
        assert host.holders() == []
        assert str(host.base) not in Path("/proc/self/mounts").read_text()


@pytest.fixture(params=SHELLS)
def host(request: pytest.FixtureRequest, make_host: MakeHost) -> OnHost:
    """A host in each of the shells, with none but busybox's tools."""
    return make_host(request.param, busybox=True)


@pytest.fixture
def any_host(make_host: MakeHost) -> OnHost:
    """A host whose shell makes no difference, with the system's own tools."""
    return make_host("dash")
