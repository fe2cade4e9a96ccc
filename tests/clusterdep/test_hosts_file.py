"""The hosts file: what is read of it, and that every problem is named by its line at once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clusterdep.api.errors import Fault, Kind
from clusterdep.api.hosts_file import KEYS, HostEntry, is_archive, load, parse

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = Path("/etc/clusterbuild")

WHOLE = """
[defaults]
user = "pbulk"
sudo = "doas -n"
sandbox = "mount"
slots = 2
time_limit = "8h"
known_hosts = "known_hosts"

[[host]]
name = "sparc1"
address = "sparc1.lab"
tags = ["slow"]
slots = 1

[[host]]
name = "epyc"
port = 2222
user = ""
sudo = ""
slots = 18
cores = 32
memory = "64G"
classes = { memory-hog = 2 }
base = "/build/cb"
time_limit = 5400
connect_timeout = "1.5m"
identity = "/keys/id"
"""


def hosts(text: str) -> tuple[HostEntry, ...]:
    return parse(text, "hosts.toml", DIRECTORY)


def problems(text: str) -> list[str]:
    """What is said of a file that cannot be used."""
    with pytest.raises(Fault) as caught:
        hosts(text)
    assert caught.value.kind is Kind.CONFIG
    return str(caught.value).splitlines()[1:]


def test_a_host_is_what_stands_for_it_and_else_the_defaults() -> None:
    sparc, epyc = hosts(WHOLE)
    assert sparc == HostEntry(
        "sparc1",
        address="sparc1.lab",
        user="pbulk",
        sudo=("doas", "-n"),
        sandbox="mount",
        slots=1,
        tags=("slow",),
        time_limit=8 * 3600,
        known_hosts=DIRECTORY / "known_hosts",
    )
    assert (epyc.port, epyc.user, epyc.sudo, epyc.slots) == (2222, "", (), 18)
    assert (epyc.cores, epyc.memory, dict(epyc.classes)) == (32, 64 * 2**30, {"memory-hog": 2})
    assert (epyc.base, epyc.time_limit, epyc.connect_timeout) == ("/build/cb", 5400, 90)
    assert (epyc.identity, epyc.sandbox) == (Path("/keys/id"), "mount")


def test_all_problems_are_said_at_once_with_their_lines() -> None:
    said = problems(
        "colour = 1\n"
        "[defaults]\n"
        "slots = -1\n"
        'name = "x"\n'
        "\n"
        "[[host]]\n"
        'name = "a"\n'
        "solts = 2\n"
        "port = 70000\n"
        "[[host]]\n"
        "slots = 1\n"
        "[[host]]\n"
        'name = "a"\n'
        'base = "tmp"\n'
    )
    assert [line.partition(": ")[0] for line in said] == [
        f"hosts.toml:{line}" for line in (1, 3, 4, 8, 9, 10, 14, 13)
    ]
    assert "unknown 'colour'" in said[0]
    assert "unknown key 'solts'" in said[3] and "slots" in said[3]
    assert "port must be a whole number from 1 to 65535, and is 70000" in said[4]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('address = "-oProxyCommand=reboot"', "address must be"),
        ('user = "-l root"', "user must be"),
        ('base = "/a/../b"', "base must be"),
        ('base = "/"', "base must be"),
        ('base = "/a b"', "base must be"),
        ("slots = true", "slots must be"),
        ('slots = "2"', "slots must be"),
        ('sandbox = "jail"', "one of auto, mount, overlay, chroot, none"),
        ('sandbox = "chroot"', "sandbox chroot needs sandbox_base"),
        ('sandbox_base = "roots/debian"', "sandbox_base must be an absolute path on the host"),
        ('sandbox_base = "/"', "sandbox_base must be"),
        ('sandbox_base = "a\\nb.tar"', "sandbox_base must be"),
        ('sandbox_memory = "4 GB"', "sandbox_memory must be a size"),
        ('time_limit = "8 hours"', 'as 90, "90s"'),
        ("time_limit = -1", "time_limit must be"),
        ('tags = "slow"', "tags must be a list"),
        ("tags = [1]", "tags must be a list"),
        ('classes = { "a b" = 1 }', "classes must be"),
        ("classes = { big = -1 }", "classes must be"),
        ('memory = "1 G"', "memory must be a size"),
        ('sudo = "doas \'n"', "sudo must be words"),
        ("transfers = 0", "transfers must be"),
        ('shell = "sh -x"', "shell must be"),
        ('identity = ""', "identity must be"),
    ],
)
def test_a_value_that_cannot_be_is_said(line: str, expected: str) -> None:
    said = problems(f'[[host]]\nname = "a"\n{line}\n')
    assert len(said) == 1
    assert re.match(r"hosts\.toml:[13]: host '?a'?: ", said[0])
    assert expected in said[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "there is no [[host]]"),
        ("[defaults]\nslots = 1\n", "there is no [[host]]"),
        ("[host]\nname = 'a'\n", "must be written [[host]]"),
        ("[[host]]\nname = 'a/b'\n", "a name of letters"),
        ("defaults = 3\n[[host]]\nname = 'a'\n", "must be a table"),
    ],
)
def test_a_file_without_hosts_is_refused(text: str, expected: str) -> None:
    assert any(expected in line for line in problems(text))


def test_what_is_not_toml_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="line 1"):
        hosts("[[host]\n")
    with pytest.raises(Fault, match="No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(Fault, match="cannot be read"):
        load(tmp_path / "binary")


def test_files_are_looked_for_beside_it(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text('[[host]]\nname = "a"\nssh_config = "ssh/config"\n')
    (entry,) = load(tmp_path / "hosts.toml")
    assert entry.ssh_config == tmp_path / "ssh/config"


def test_what_a_root_is_made_of() -> None:
    there, here, abroad = hosts(
        "[defaults]\nsandbox = 'chroot'\nsandbox_base = '/srv/base'\nsandbox_memory = '2G'\n"
        "[[host]]\nname = 'a'\n"
        "[[host]]\nname = 'b'\nsandbox_base = 'base, 1.tar.xz'\n"
        "[[host]]\nname = 'c'\nsandbox_base = '/srv/base.tgz'\n"
    )
    assert (there.sandbox_base, there.sandbox_memory) == ("/srv/base", 2 << 30)
    assert (here.sandbox_base, abroad.sandbox_base) == (
        "/etc/clusterbuild/base, 1.tar.xz",
        "/srv/base.tgz",
    )
    assert [is_archive(host.sandbox_base) for host in (there, here, abroad)] == [False, True, True]


def test_every_key_is_a_field_and_is_documented() -> None:
    assert set(KEYS) == set(HostEntry.__dataclass_fields__)
    documented = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/hosts.md").read_text(), re.M))
    assert documented == set(KEYS)
