"""Overlay and chroot through the engine: what hosts say of them, and roots that are sent once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from onhost_fakes import FakeTree
from small_system import small_system

from clusterbuild.core.result import Outcome
from clusterbuild.engines import OVER, EngineError, JobSpec, Kind
from clusterbuild.engines.host import HostEngine
from clusterbuild.engines.local import clean_prefix_command, local_engine


@pytest.fixture
def tree(top: Path) -> FakeTree:
    return FakeTree(top / "tree", top / "prefix")


@pytest.fixture(autouse=True)
def nothing_mounted(top: Path) -> Iterator[None]:
    yield
    assert str(top) not in Path("/proc/self/mounts").read_text()


def job(tree: FakeTree, attempt: str, **values: object) -> JobSpec:
    pkgpath = f"test/{attempt}"
    path = f"{tree.prefix}/bin:{tree.prefix}/sbin:/usr/bin:/bin"
    places = {"prefix": str(tree.prefix), "kit": tree.kit, "make": "/usr/bin/bmake"}
    return JobSpec(
        attempt, f"{attempt}-1.0", pkgpath, tree.root, search_path=path, **places, **values
    )  # type: ignore[arg-type]


async def outcome(engine: HostEngine, spec: JobSpec) -> Outcome:
    await engine.start(spec)
    async for state in engine.watch():
        if state.attempt == spec.attempt and state.life in OVER:
            break
    return (await engine.result(spec.attempt)).outcome


async def test_a_host_says_what_works(top: Path, engine: HostEngine) -> None:
    facts = await engine.probe()
    assert facts.sandboxes == ("mount", "overlay", "chroot", "none")
    assert not facts.no_sandboxes
    (top / "empty").mkdir()
    facts = await local_engine(top / "base", base_dir=str(top / "empty")).probe()
    assert "chroot" not in facts.sandboxes
    assert "is there a system in" in facts.no_sandboxes["chroot"]
    system = small_system(top / "system")
    facts = await local_engine(top / "base", base_dir=str(system)).probe()
    assert "chroot" in facts.sandboxes
    assert sorted(path.name for path in (top / "base").iterdir()) == ["on_host"]


async def test_overlay(engine: HostEngine, tree: FakeTree) -> None:
    name = tree.root / "changed"
    tree.package("over", DO_BUILD=f"echo x > {name} && df -k /etc > file")
    spec = job(tree, "over", sandbox="overlay", layer_size=1 << 24)
    assert await outcome(engine, spec) is Outcome.BUILT
    assert not name.exists()


@pytest.fixture
def archive(top: Path) -> Path:
    """A system in a tar file."""
    system = small_system(top / "system")
    (system / "etc/release").write_text("small\n")
    subprocess.run(["tar", "czf", str(top / "s.tgz"), "-C", str(system), "."], check=True)
    return top / "s.tgz"


async def test_a_root_is_sent_once(
    engine: HostEngine, tree: FakeTree, top: Path, archive: Path
) -> None:
    see = "grep small /etc/release > file"
    for name in ("one", "two"):
        tree.package(name, DO_BUILD=see)
        spec = job(tree, name, sandbox="chroot", base_file=archive)
        assert await outcome(engine, spec) is Outcome.BUILT
        [root] = (top / "base/roots").iterdir()
        (root / "etc/kept").touch()
        see += " && test -e /etc/kept"
    assert not (top / "base/files" / root.name).exists()


async def test_a_root_that_is_not_there(engine: HostEngine, tree: FakeTree, top: Path) -> None:
    tree.package("none")
    with pytest.raises(EngineError) as caught:
        await engine.start(job(tree, "none", sandbox="chroot", base_dir=str(top / "nowhere")))
    assert caught.value.kind is Kind.REFUSED
    assert f"there is no directory {top}/nowhere" in str(caught.value)


@pytest.mark.parametrize("kind", ["overlay", "chroot"])
def test_scans_get_a_mount_namespace(top: Path, tree: FakeTree, kind: str) -> None:
    argv = clean_prefix_command(
        ["sh", "-c", f"ls {tree.prefix}; exit 7"],
        base=top / "base",
        kind=kind,
        prefix=str(tree.prefix),
        pkgdb="",
        kit=tree.kit,
    )
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "sbin\n")
    assert f"mount instead of {kind}" in done.stderr
