"""What the tests of the example tree share: bootstrapping, running make and the package tools."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2] / "examples" / "pkgsrc"
SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
STAGES = ("checksum", "configure", "all", "stage-install", "stage-package-create")
KEYS = (
    "PKGNAME",
    "ALL_DEPENDS",
    "PKG_SKIP_REASON",
    "PKG_FAIL_REASON",
    "NO_BIN_ON_FTP",
    "RESTRICTED",
    "CATEGORIES",
    "MAINTAINER",
    "USE_DESTDIR",
    "BOOTSTRAP_PKG",
    "USERGROUP_PHASE",
    "SCAN_DEPENDS",
)
OPTIONAL_KEYS = ("MAKE_JOBS_SAFE", "PBULK_WEIGHT", "MULTI_VERSION")


@dataclass(frozen=True)
class Done:
    """How a command ended: exit status, standard output, standard error."""

    exit: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Everything it wrote."""
        return self.out + self.err


def run(argv: list[str], cwd: Path, env: dict[str, str]) -> Done:
    """Runs a command with nothing in its environment but env."""
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def contents(directory: Path) -> set[str]:
    """Every file and directory below a directory, relative to it."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def state_of_tree() -> dict[str, tuple[int, int]]:
    """Size and time of every file of the tree, to see that nothing is written to it."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in TREE.rglob("*")
        if path.exists()
    }


@dataclass(frozen=True)
class Place:
    """A kit, its prefix and directories to build in, all below one directory."""

    root: Path

    @property
    def prefix(self) -> Path:
        return self.root / "prefix"

    @property
    def kit(self) -> Path:
        return self.root / "kit.tgz"

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": f"{self.prefix}/bin:{self.prefix}/sbin:{SYSTEM_PATH}",
            "HOME": str(self.root),
            "LC_ALL": "C",
            "MAKECONF": f"{self.prefix}/etc/mk.conf",
        }

    def bootstrap(self, *more: str) -> Done:
        """Makes the kit, with the system's own environment as an operator would."""
        argv = [str(TREE / "bootstrap" / "bootstrap")]
        argv += ["--prefix", str(self.prefix), "--pkgdbdir", str(self.prefix / "pkgdb")]
        argv += ["--workdir", str(self.root / "bootstrap"), "--binary-kit", str(self.kit)]
        return run([*argv, *more], self.root, {"PATH": SYSTEM_PATH, "HOME": str(self.root)})

    def fresh_prefix(self) -> None:
        """The prefix as the kit has it."""
        if self.prefix.exists():
            subprocess.run(["rm", "-rf", str(self.prefix)], check=True)
        subprocess.run(["tar", "-xzf", str(self.kit), "-C", "/"], check=True)

    def make(self, pkgpath: str, *words: str) -> Done:
        """Runs make in a directory of the tree the way a bulk build does."""
        variables = {
            "BATCH": "1",
            "DEPENDS_TARGET": "/nonexistent",
            "WRKOBJDIR": str(self.root / "obj"),
            "WRKLOG": str(self.root / "work.log"),
            "DISTDIR": str(self.root / "distfiles"),
            "PACKAGES": str(self.root / "unused"),
        }
        given = [f"{name}={value}" for name, value in variables.items()]
        return run(["bmake", *given, *words], TREE / pkgpath, self.env)

    def tool(self, name: str, *args: str, shell: str | None = None) -> Done:
        """Runs a package tool of the prefix, with the repository as PKG_PATH."""
        argv = [*(shell.split() if shell else []), str(self.prefix / "sbin" / name), *args]
        return run(argv, self.root, self.env | {"PKG_PATH": str(self.packages)})

    def build(self, pkgpath: str, *requirements: str, words: tuple[str, ...] = ()) -> Path:
        """Builds one package by the stages of a bulk build; returns the package file."""
        self.fresh_prefix()
        assert self.make(pkgpath, *words, "clean").exit == 0
        if requirements:
            added = self.tool("pkg_add", *requirements)
            assert (added.exit, added.said) == (0, ""), added.said
        before = contents(self.prefix)
        for stage in STAGES:
            done = self.make(pkgpath, *words, stage)
            assert done.exit == 0, done.said
        assert contents(self.prefix) == before, "the build itself installed something"
        made = Path(self.make(pkgpath, *words, "show-var", "VARNAME=STAGE_PKGFILE").out.strip())
        name = made.name.removesuffix(".tgz")
        for tried in (self.tool("pkg_add", str(made)), self.tool("pkg_delete", name)):
            assert (tried.exit, tried.said) == (0, ""), tried.said
        assert contents(self.prefix) == before, "pkg_delete left something"
        self.packages.mkdir(exist_ok=True)
        kept = self.packages / made.name
        made.replace(kept)
        assert self.make(pkgpath, *words, "clean").exit == 0
        return kept


def category_list(place: Place, directory: str = ".") -> list[str]:
    """The SUBDIR list of the top or of a category, as the scanner asks for it."""
    done = run(["bmake", "show-subdir-var", "VARNAME=SUBDIR"], TREE / directory, place.env)
    assert done.exit == 0 and done.out.count("\n") == 1, done.said
    return done.out.split()


def split_records(text: str) -> list[list[tuple[str, str]]]:
    """The records of pbulk-index output, as (key, value) pairs in order."""
    records: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        assert equals, f"not KEY=value: {line!r}"
        if key == "PKGNAME":
            records.append([])
        records[-1].append((key, value))
    return records
