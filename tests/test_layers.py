"""What may import what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Modules with input, output, a clock, threads, processes or a database in them.
IMPURE = {
    "asyncio", "concurrent", "fcntl", "glob", "grpc", "http", "logging", "multiprocessing",
    "os", "pathlib", "random", "secrets", "select", "selectors", "shutil", "signal", "socket",
    "sqlite3", "sqlite_utils", "subprocess", "sys", "tempfile", "threading", "time", "urllib",
    "uuid", "fabric", "paramiko", "invoke", "prometheus_client", "google", "zstandard",
}  # fmt: skip
#: One technology each; only the daemon, the command line and `run` put them together.
ADAPTERS = {
    "clusterdep": {"store", "service", "metrics", "scanner", "scanfile", "trees"},
    "clusterbuild": {"engines", "service", "metrics", "repository"},
}


def modules(package: str) -> list[Path]:
    found = (ROOT / package).rglob("*.py")
    return sorted(p for p in found if "api/v1" not in str(p))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


@pytest.mark.parametrize("package", ["clusterdep", "clusterbuild"])
def test_core_is_pure(package: str) -> None:
    for path in modules(f"{package}/core"):
        for name in imports(path):
            assert name.split(".")[0] not in IMPURE, f"{path.name} imports {name}"
            if name.startswith(("clusterdep", "clusterbuild")):
                assert name.startswith(f"{package}.core"), f"{path.name} imports {name}"


def test_clusterbuild_knows_only_the_api_of_clusterdep() -> None:
    for path in modules("clusterbuild"):
        for name in imports(path):
            if name.startswith("clusterdep"):
                assert name.startswith("clusterdep.api"), f"{path} imports {name}"


def test_clusterdep_knows_nothing_of_clusterbuild() -> None:
    for path in modules("clusterdep"):
        assert not [name for name in imports(path) if name.startswith("clusterbuild")], path


def test_the_api_is_neutral() -> None:
    for path in modules("clusterdep/api"):
        for name in imports(path):
            if name.startswith("clusterdep"):
                assert name.startswith("clusterdep.api"), f"{path} imports {name}"


@pytest.mark.parametrize("package", ["clusterdep", "clusterbuild"])
def test_adapters_do_not_know_each_other(package: str) -> None:
    known = {name_of(p) for p in modules(package)}
    neutral = {"clusterbuild.engines"}  # the interface of all engines, not one of them
    for adapter in ADAPTERS[package]:
        paths = [p for p in modules(package) if name_of(p).startswith(f"{package}.{adapter}")]
        assert paths, adapter
        for path in paths:
            for name in imports(path):
                for other in ADAPTERS[package] - {adapter}:
                    there = f"{package}.{other}"
                    module = name if name in known else name.rpartition(".")[0]
                    if module not in neutral:
                        assert module != there and not module.startswith(f"{there}."), path


@pytest.mark.parametrize("package", ["clusterdep", "clusterbuild"])
def test_no_module_imports_itself_by_a_detour(package: str) -> None:
    names = {name_of(p): p for p in modules(package)}
    edges = {
        name: {
            target
            for imported in imports(path)
            for target in (imported, imported.rpartition(".")[0])
            if target in names and target != name
        }
        for name, path in names.items()
    }
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a cycle of imports: {' -> '.join((*trail, name))}"
        if name not in done:
            for other in sorted(edges[name]):
                walk(other, (*trail, name))
            done.add(name)

    for name in names:
        walk(name, ())


@pytest.mark.parametrize("package", ["clusterdep", "clusterbuild"])
def test_every_module_says_what_it_is(package: str) -> None:
    for path in modules(package):
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text, path
