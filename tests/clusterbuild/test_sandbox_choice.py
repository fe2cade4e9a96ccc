"""Which sandbox the jobs of a host get, and what they are told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from build_fakes import FACTS

from clusterbuild import config
from clusterbuild.daemon import rules_of
from clusterbuild.messages import Sandbox, sandbox_of, spec_of
from clusterbuild.repository import Repository
from clusterbuild.rules import Rules
from clusterbuild.snapshots import Snapshot
from clusterdep.api.v1 import clusterdep_pb2 as pb

ALL = replace(FACTS, sandboxes=("mount", "overlay", "chroot", "none"), cores=4)
LESS = replace(
    FACTS, sandboxes=("chroot", "none"), no_sandboxes={"overlay": "unknown filesystem type"}
)


@pytest.mark.parametrize(
    ("facts", "sandbox", "base", "expected"),
    [
        (ALL, "auto", "", Sandbox("mount", 4)),
        (ALL, "auto", "/srv/base", Sandbox("mount", 4)),
        (ALL, "overlay", "", Sandbox("overlay", 4)),
        (ALL, "chroot", "/srv/base", Sandbox("chroot", 4)),
        (ALL, "none", "", Sandbox("none", 1)),
        (LESS, "auto", "", Sandbox("none", 1)),
        (LESS, "auto", "/srv/base", Sandbox("chroot", 2)),
    ],
)
def test_the_best_that_works_or_what_is_wanted(facts, sandbox, base, expected):
    facts = replace(facts, cores=expected.slots if expected.slots > 1 else 4)
    assert sandbox_of(facts, Rules("d", sandbox=sandbox, sandbox_base=base)) == expected


@pytest.mark.parametrize(
    ("sandbox", "why"),
    [
        (
            "overlay",
            r"overlay does not work here \(unknown filesystem type\); those that do: none$",
        ),
        ("chroot", "no sandbox_base is set"),
        ("mount", "mount does not work here; those that do"),
    ],
)
def test_a_host_without_it_is_refused_and_told_why(sandbox, why):
    with pytest.raises(ValueError, match=why):
        sandbox_of(LESS, Rules("d", sandbox=sandbox))


@pytest.mark.parametrize("kind", ["mount", "overlay", "chroot"])
@pytest.mark.parametrize("base", ["/srv/base", "/srv/base.tgz"])
def test_a_job_is_told_what_its_kind_needs(tmp_path, kind, base):
    spec = spec_of(
        pb.Grant(attempt="a", pkgname="foo-1.0"),
        Repository(tmp_path),
        Rules("d", sandbox_base=base, sandbox_memory=5),
        sandbox=Sandbox(kind, 2),
        slots=2,
        snapshot=Snapshot("0" * 64, tmp_path),
    )
    assert (spec.sandbox, spec.layer_size) == (kind, 0 if kind == "mount" else 5)
    archive = base.endswith(".tgz")
    assert spec.base_dir == (base if kind == "chroot" and not archive else "")
    assert spec.base_file == (Path(base) if kind == "chroot" and archive else None)


def test_the_configuration_of_this_machine(tmp_path):
    path = tmp_path / "conf.toml"
    path.write_text('sandbox = "chroot"\nsandbox_base = "base.tgz"\nsandbox_memory = "1G"\n')
    rules = rules_of(config.load(path))
    assert (rules.sandbox, rules.sandbox_memory) == ("chroot", 1 << 30)
    assert rules.sandbox_base == str(tmp_path / "base.tgz")


def test_the_hosts_file(tmp_path):
    hosts = tmp_path / "hosts.toml"
    hosts.write_text(
        '[[host]]\nname = "a"\nsandbox = "overlay"\nsandbox_memory = 9\n'
        '[[host]]\nname = "b"\nsandbox = "chroot"\nsandbox_base = "/srv/base"\n'
    )
    rules = rules_of(replace(config.load(None), hosts=hosts))
    assert (rules.of("a").sandbox, rules.of("a").sandbox_memory) == ("overlay", 9)
    assert (rules.of("b").sandbox, rules.of("b").sandbox_base) == ("chroot", "/srv/base")
