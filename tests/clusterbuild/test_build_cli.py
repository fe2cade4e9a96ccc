"""The command line, as people meet it: what it prints, its exit codes, and no tracebacks."""

import asyncio
import json
import os
import socket
import subprocess
import sys

import pytest
from build_fakes import until

from clusterbuild import cli
from clusterbuild.core.result import STAGES


async def clusterbuild(*words, state=None, env=None):
    """Exit code, standard output and standard error of a command."""
    where = ["--state", str(state)] if state else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clusterbuild", *words[:1], *where, *words[1:]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert b"Traceback" not in err
    return process.returncode, out.decode(), err.decode()


class TestWithADaemon:
    async def ask(self, world, *words):
        code, out, err = await clusterbuild(*words, state=world.settings.state)
        assert (code, err) == (os.EX_OK, "")
        return out

    async def test_readers(self, world):
        world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        await until(lambda: world.clusterdep.last.holding)
        out = await self.ask(world, "status")
        assert "dispatcher  farm, working" in out
        assert "slots       1 of 2 busy, 1 jobs in hand" in out
        status = json.loads(await self.ask(world, "status", "--json"))
        assert status["jobs"][0]["pkgname"] == "foo-1.0"
        assert status["connected"] is True
        assert (await self.ask(world, "hosts")).split()[:3] == ["localhost", "ready", "1/2"]
        assert json.loads(await self.ask(world, "hosts", "--json"))["memory"] == 2**32
        assert (await self.ask(world, "jobs")).split()[:4] == [
            "foo-1.0",
            "test",
            "localhost",
            "building",
        ]
        assert json.loads(await self.ask(world, "jobs", "--json"))["pid"] == 4711

    async def test_logs(self, world):
        world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        world.host.of("foo-1.0").logs = {"configure": b"one\n", "build": b"\x1b[31mtwo\xff\n"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "clusterbuild", "log"),
            *("--state", str(world.settings.state), "foo-1.0"),
            stdout=subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert out == b"one\n\x1b[31mtwo\xff\n", "as it is, where it is not a terminal"
        assert await self.ask(world, "log", "foo-1.0", "--stage", "configure") == "one\n"
        assert await self.ask(world, "log", "foo-1.0", "--offset", "2", "--stage", "configure")
        lines = (await self.ask(world, "log", "--json", "foo-1.0")).splitlines()
        assert json.loads(lines[1]) == {"offset": 4, "data": "\x1b[31mtwo\\xff\n"}

    async def test_a_log_that_is_not_there(self, world):
        code, out, err = await clusterbuild("log", "nosuch-1", state=world.settings.state)
        assert (code, out) == (os.EX_DATAERR, "")
        assert err.startswith("clusterbuild: there is no log of 'nosuch-1'\n")
        code, _, err = await clusterbuild("log", "x", "--stage", "eat", state=world.settings.state)
        assert code == os.EX_DATAERR
        assert f"stages: {', '.join(STAGES)}" in err

    async def test_orders_are_quiet(self, world):
        assert await self.ask(world, "stop") == ""
        assert "stopping" in await self.ask(world, "status")
        assert await self.ask(world, "resume") == ""
        assert "waiting for work" in await self.ask(world, "status")
        world.clusterdep.offer("foo-1.0")
        await until(lambda: world.host.running("foo-1.0"))
        assert await self.ask(world, "stop", "--now") == ""
        await until(lambda: world.host.jobs == {})

    async def test_a_second_daemon(self, world):
        code, _, err = await clusterbuild("serve", state=world.settings.state)
        assert code == os.EX_TEMPFAIL
        assert "another 'clusterbuild' (pid" in err
        assert "--state DIR" in err


class TestErrors:
    @pytest.mark.parametrize("command", ["status", "hosts", "jobs", "stop", "resume"])
    async def test_no_daemon(self, tmp_path, command):
        code, out, err = await clusterbuild(command, state=tmp_path)
        assert (code, out) == (os.EX_UNAVAILABLE, "")
        assert f"clusterbuild does not answer at unix:{tmp_path}/clusterbuild.sock" in err
        assert "start it with 'clusterbuild serve'" in err

    async def test_no_clusterdep(self, tmp_path):
        code, _, err = await clusterbuild("report", state=tmp_path)
        assert code == os.EX_UNAVAILABLE
        assert f"clusterdep does not answer at unix:{tmp_path}/clusterdep.sock" in err

    @pytest.mark.parametrize(
        "words",
        [[], ["cook"], ["run"], ["log"], ["serve", "--slots", "-1"], ["run", "--tree"]],
        ids=str,
    )
    async def test_wrong_usage(self, words):
        code, out, err = await clusterbuild(*words)
        assert (code, out) == (os.EX_USAGE, "")
        assert err.startswith("usage: clusterbuild")

    async def test_configuration(self, tmp_path):
        path = tmp_path / "c.toml"
        path.write_text("slotz = 3\n")
        code, _, err = await clusterbuild("serve", "--config", str(path))
        assert code == os.EX_CONFIG
        assert f"{path}:1: unknown key 'slotz'" in err
        code, _, err = await clusterbuild("serve", "--config", str(tmp_path / "none.toml"))
        assert code == os.EX_CONFIG
        assert "No such file or directory" in err

    async def test_a_state_directory_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        code, _, err = await clusterbuild("serve", state=tmp_path / "file" / "x")
        assert code == os.EX_CANTCREAT
        assert "cannot be written: Not a directory" in err
        assert "--state DIR" in err

    async def test_a_state_directory_that_makefiles_cannot_handle(self, tmp_path):
        code, _, err = await clusterbuild("serve", state=tmp_path / "a b")
        assert code == os.EX_CONFIG
        assert "makefiles cannot handle such names" in err

    async def test_a_port_in_use(self, tmp_path):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            (tmp_path / "c.toml").write_text(f'metrics = "127.0.0.1:{port}"\n')
            code, _, err = await clusterbuild(
                "serve", "--config", str(tmp_path / "c.toml"), state=tmp_path / "s"
            )
        assert code == os.EX_UNAVAILABLE
        assert f"metrics cannot be served at 127.0.0.1:{port}: Address already in use" in err
        assert "name another port" in err

    async def test_a_build_user_that_cannot_reach_its_jobs(self, tmp_path):
        (tmp_path / "c.toml").write_text('build_user = "nobody"\n')
        code, _, err = await clusterbuild(
            "serve", "--config", str(tmp_path / "c.toml"), state=tmp_path / "s"
        )
        assert code == os.EX_CONFIG
        wanted = "chmod o+x" if os.geteuid() == 0 else "only root can run jobs as somebody else"
        assert wanted in err

    @pytest.mark.parametrize(
        ("make", "part"),
        [
            (lambda tree: None, "there is no tree"),
            (lambda tree: tree.mkdir(), "is no pkgsrc tree"),
            (
                lambda tree: (tree.mkdir(), (tree / "Makefile").write_text("")),
                "there is no bootstrap kit for",
            ),
        ],
    )
    async def test_trees_that_cannot_be_built(self, tmp_path, make, part):
        tree = tmp_path / "tree"
        make(tree)
        code, out, err = await clusterbuild("run", "--tree", str(tree), state=tmp_path / "s")
        assert (code, out) == (os.EX_NOINPUT, "")
        assert part in err
        assert not (tmp_path / "s").exists(), "nothing was begun"


def test_help_is_complete(capsys):
    for words in (["--help"], ["run", "--help"], ["serve", "--help"], ["log", "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 0
    text = capsys.readouterr().out
    for part in ("serve", "resume", "--retry-failed", "--once", "sysexits(3)", "SIGHUP"):
        assert part in text
