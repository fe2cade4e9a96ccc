"""The command line: what a person sees when it works, and when it does not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from dep_daemon import Daemon, built, failed, record

from clusterdep import config
from clusterdep.api.errors import Fault


async def run(*words: str, stdin: bytes = b"", **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "clusterdep",
        *words,
        stdin=-1,
        stdout=-1,
        stderr=-1,
        env=os.environ | environment,
    )
    out, err = await process.communicate(stdin)
    assert b"Traceback" not in err, err.decode()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def ask(dep: Daemon, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
    return await run("--state", str(dep.state), *words, stdin=stdin)


TREE = (
    record("liba-1.0"),
    record("prog-1.0", ["liba>=1"]),
    record("bad-1.0", ["nosuch-[0-9]*"]),
    record("skip-1.0", PKG_SKIP_REASON='"not here"'),
)


async def test_load_says_nothing_when_all_is_well(dep: Daemon) -> None:
    text = b"".join(TREE)
    assert await ask(dep, "load", "p", "-", stdin=text) == (
        0,
        "",
        "clusterdep: made profile p\n",
    )
    assert await ask(dep, "load", "p", "-", stdin=text) == (0, "", "")
    code, out, _ = await ask(dep, "load", "p", "-", "--json", stdin=text)
    answer = json.loads(out)
    assert (code, answer["records"], answer["changed"], answer["added"]) == (0, 4, 0, 0)


async def test_a_bad_record_is_refused_alone(dep: Daemon) -> None:
    bad = record("evil-1.0", pkgpath="../etc")
    code, _, err = await ask(dep, "load", "p", "-", stdin=b"".join([TREE[0], bad, TREE[1]]))
    assert code == 0
    assert "refused record 2 (../etc)" in err
    assert "not of the form category/package" in err
    assert set(await dep.statuses()) == {"liba-1.0", "prog-1.0"}


async def test_what_is_no_scan_at_all_is_refused(dep: Daemon) -> None:
    code, _, err = await ask(dep, "load", "p", "-", stdin=b"hello\nworld\n")
    assert code == os.EX_DATAERR
    assert "line 1: there is no record" in err


async def test_a_file_cut_off_changes_nothing(dep: Daemon, tmp_path: Path) -> None:
    await dep.load(*TREE)
    whole = tmp_path / "scan"
    whole.write_bytes(b"".join(record(f"p{n}-1.0") for n in range(5000)))
    await (await asyncio.create_subprocess_exec("gzip", str(whole))).wait()
    packed = whole.with_suffix(".gz")
    packed.write_bytes(packed.read_bytes()[:-500])
    code, _, err = await ask(dep, "load", "p", str(packed))
    assert code == os.EX_DATAERR
    assert str(packed) in err
    assert len(await dep.statuses()) == 4


async def test_readers_agree_in_text_and_json(dep: Daemon) -> None:
    await dep.load(*TREE)
    assert (await ask(dep, "jobs"))[1] == "liba-1.0  cat/liba\n"
    assert json.loads((await ask(dep, "jobs", "--json"))[1])["status"] == "open"
    assert (await ask(dep, "requires", "prog"))[1] == "liba>=1: liba-1.0 (open)\n"
    assert (await ask(dep, "requires", "bad-1.0"))[1] == "nosuch-[0-9]*: nothing matches\n"
    assert (await ask(dep, "required-by", "cat/liba"))[1] == "prog-1.0 (waiting)\n"
    assert (
        "bad-1.0 unresolved: no package matches nosuch-[0-9]*"
        in (await ask(dep, "status", "--packages"))[1]
    )
    why = (await ask(dep, "why", "prog"))[1].splitlines()
    assert why[0].startswith("prog-1.0 is waiting: a requirement is still to be built")
    assert why[1].startswith("  liba-1.0 is open: ")
    shown = (await ask(dep, "show", "liba"))[1]
    assert "PKG_LOCATION=cat/liba" in shown and "status       open" in shown
    summary = json.loads((await ask(dep, "status", "--json"))[1])
    assert {c["status"]: c["all"] for c in summary["counts"]} == {
        "open": 1,
        "skipped": 1,
        "unresolved": 1,
        "waiting": 1,
    }


async def test_history_and_events_tell_the_story(dep: Daemon) -> None:
    await dep.load(*TREE)
    grant = (await dep.exchange()).grants[0]
    grant = (await dep.exchange(results=[built(grant)])).grants[0]
    await dep.exchange(results=[failed(grant)], hosts=[])
    history = (await ask(dep, "history"))[1].splitlines()
    assert "prog-1.0" in history[0] and "make exited with 1" in history[0]
    assert "built" in history[1]
    events = [json.loads(line) for line in (await ask(dep, "events", "--json"))[1].splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds == ["profile", "records", "granted", "built", "granted", "failed"]
    assert [event["sequence"] for event in events] == list(range(1, 7))
    assert events[-1]["detail"]["stage"] == "build"
    later = (await ask(dep, "events", "--after", "4"))[1].splitlines()
    assert len(later) == 2
    assert (await ask(dep, "retry", "p"))[0] == 0
    assert (await ask(dep, "jobs"))[1].startswith("prog-1.0")


async def test_names_that_are_not_one_package(dep: Daemon) -> None:
    await dep.load(
        *TREE,
        record("py39-x-1.0", pkgpath="cat/x", MULTI_VERSION="PY=39"),
        record("py27-x-1.0", pkgpath="cat/x", MULTI_VERSION="PY=27"),
    )
    code, _, err = await ask(dep, "show", "cat/x")
    assert code == os.EX_DATAERR
    assert "py39-x-1.0 (PY=39), py27-x-1.0 (PY=27)" in err and "--variant" in err
    assert (await ask(dep, "show", "cat/x", "--variant", "PY=27"))[1].startswith("py27-x-1.0")
    code, _, err = await ask(dep, "why", "cat/nothing")
    assert code == os.EX_DATAERR and "has no package 'cat/nothing'" in err
    code, _, err = await ask(dep, "jobs", "-p", "q")
    assert code == os.EX_DATAERR and "no profile 'q'" in err and "profiles: p" in err


async def test_a_selection_that_can_not_be(dep: Daemon) -> None:
    await dep.load(*TREE)
    code, _, err = await ask(dep, "select", "p", "{unbalanced-[0-9]*")
    assert code == os.EX_DATAERR and "{unbalanced" in err
    assert (await ask(dep, "select", "p", "cat/nowhere"))[2] == (
        "clusterdep: nothing is called cat/nowhere yet\n"
    )


async def test_the_daemon_is_not_there(tmp_path: Path) -> None:
    code, _, err = await run("--state", str(tmp_path), "status")
    assert code == os.EX_UNAVAILABLE
    assert f"does not answer at unix:{tmp_path}/clusterdep.sock" in err
    assert "clusterdep serve" in err


async def test_two_daemons_on_one_state(dep: Daemon) -> None:
    code, _, err = await run("serve", "--state", str(dep.state))
    assert code == os.EX_TEMPFAIL
    assert f"another 'clusterdep' (pid {os.getpid()})" in err


async def test_a_file_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "clusterdep.db").write_bytes(b"this is not a database at all, sorry" * 100)
    code, _, err = await run("serve", "--state", str(tmp_path))
    assert code == os.EX_DATAERR and "clusterdep.db is damaged or no database" in err


async def test_state_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = await run("serve", "--state", str(tmp_path / "file" / "below"))
    assert code == os.EX_CANTCREAT and "file/below" in err and "--state" in err


async def test_the_metrics_port_is_in_use(tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    file = tmp_path / "c.toml"
    file.write_text(f'metrics = "127.0.0.1:{port}"\n')
    code, _, err = await run("serve", "--state", str(tmp_path / "s"), "--config", str(file))
    taken.close()
    assert code == os.EX_UNAVAILABLE and f"127.0.0.1:{port}" in err and "in use" in err


async def test_metrics_are_served(tmp_path: Path) -> None:
    free = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = free.sockets[0].getsockname()[1]
    free.close()
    await free.wait_closed()
    dep = Daemon(tmp_path / "state")
    await dep.start(metrics=f"127.0.0.1:{port}")
    await dep.load(*TREE)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    await dep.stop()
    assert 'clusterdep_packages{profile="p",status="waiting"} 1.0' in text
    assert 'clusterdep_open_jobs{profile="p"} 1.0' in text
    assert "clusterdep_events_total 2.0" in text


async def test_backup_and_check(dep: Daemon, tmp_path: Path) -> None:
    await dep.load(*TREE)
    copy = tmp_path / "restored" / "clusterdep.db"
    copy.parent.mkdir()
    assert await ask(dep, "db", "check") == (0, "", "")
    assert await ask(dep, "db", "backup", str(copy)) == (0, "", "")
    code, _, err = await ask(dep, "db", "backup", str(copy))
    assert code == os.EX_CANTCREAT and "exists" in err
    other = Daemon(copy.parent)
    await other.start()
    assert await other.statuses() == await dep.statuses()
    await other.stop()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stat = 1\n", ":1: unknown key 'stat'; known are"),
        (
            "\nlease_seconds = 'x'\n",
            ":2: lease_seconds must be a number greater than 0, and is 'x'",
        ),
        ("lease_seconds = 40\n", "renew_seconds (30.0) must be at most half"),
        ("lease_seconds = -1\n", "lease_seconds must be a number greater than 0"),
        ("listen = '0.0.0.0:99'\n", "listen must be unix:PATH with an absolute path, tls:"),
        ("listen = 'unix:x'\n", "listen must be unix:PATH with an absolute path"),
        (f"listen = 'unix:/{'x' * 101}'\n", "listen must be a path of at most 100 bytes"),
        ("listen = ['unix:/x', 'tls:h:0']\n", "listen must be"),
        ("\nlisten = 'tls:h:1'\n", ":2: listen has tls:, for which tls_certificate must be set"),
        ("listen = ['mtls:[::]:1']\n", "mtls:, for which tls_client_ca must be set"),
        ("listen = 'plaintext:h:1'\n", "everybody on the way can read"),
        ("insecure_plaintext = 'admin'\n", "but listen has no plaintext:"),
        ("insecure_plaintext = true\n", "must be one of viewer, feeder, builder, admin"),
        ("metrics = 'nine'\n", "metrics must be HOST:PORT"),
        ("log_level = 'loud'\n", "log_level must be one of"),
        ("state = [\n", "is not TOML"),
        ("[[profile]]\ntree = '/x'\n", "profile 1 has no name"),
        ("[[profile]]\nname = 'a'\ncolour = 'red'\n", ":3: profile 1: unknown key 'colour'"),
        ("[[profile]]\nname = 'a'\nselection = [1]\n", "selection must be a list of strings"),
    ],
)
def test_wrong_configuration_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "clusterdep.toml"
    file.write_text(text)
    with pytest.raises(Fault) as fault:
        config.load(file)
    assert said in str(fault.value)
    assert str(file) in str(fault.value)
    assert fault.value.exit_code == os.EX_CONFIG


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "clusterdep.toml"
    file.write_text("stat = 1\nlog_level = 'loud'\n[[profile]]\nname = 1\n")
    with pytest.raises(Fault) as fault:
        config.load(file)
    assert str(fault.value).count(str(file)) == 3


async def test_profiles_of_the_configuration_and_sighup(tmp_path: Path) -> None:
    file = tmp_path / "clusterdep.toml"
    file.write_text("[[profile]]\nname = 'one'\ntree = '/usr/pkgsrc'\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "clusterdep", "serve", "--config", str(file),
        "--state", str(tmp_path / "s"), stderr=-1,
    )  # fmt: skip
    assert process.stderr is not None
    while b"serving at" not in await process.stderr.readline():
        pass
    listed = await run("--state", str(tmp_path / "s"), "profile", "list")
    assert listed[1] == "one  tree /usr/pkgsrc  prefix -\n"
    file.write_text("[[profile]]\nname = 'two'\ntree = '/usr/pkgsrc'\n")
    process.send_signal(1)
    assert b"was read again" in await process.stderr.readline()
    listed = await run("--state", str(tmp_path / "s"), "profile", "list")
    assert listed[1].splitlines()[1] == "two  tree /usr/pkgsrc  prefix -"
    file.write_text("nonsense = 1\n")
    process.send_signal(1)
    assert b"was not read again" in await process.stderr.readline()
    process.terminate()
    assert await process.wait() == 0
