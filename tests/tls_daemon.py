"""A clusterdep in a process of its own that serves over TCP, its CA, and callers of all roles."""

from __future__ import annotations

import contextlib
import datetime
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import grpc

from clusterdep import cli
from clusterdep.api.v1 import clusterdep_pb2 as pb
from clusterdep.api.v1 import clusterdep_pb2_grpc as rpc
from clusterdep.authority import Authority, Wanted

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
HOSTS = ("localhost", "127.0.0.1", "::1")


def free_port(family: socket.AddressFamily = socket.AF_INET) -> int:
    """A port nobody has."""
    with socket.socket(family) as probe:
        probe.bind(("::1" if family is socket.AF_INET6 else "127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pki:
    """A CA and what it issues, in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory / "ca")
        self.authority.init(directory.name, 30, NOW - 20 * DAY)
        self.ca = self.authority.certificate

    def issue(
        self, name: str, role: str = "", hosts: tuple[str, ...] = (), since: int = 0, days: int = 5
    ) -> tuple[Path, Path]:
        """Certificate and key; `since` is from how many days after now on it is valid."""
        wanted = Wanted(name, role, hosts, days)
        path = self.authority.issue(wanted, self.directory, NOW + since * DAY, renew=False)
        return path, path.with_suffix(".key")

    def show(self, pair: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
        """What a client needs that believes this CA and shows a certificate."""
        chain, key = pair or (None, None)
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(), key and key.read_bytes(), chain and chain.read_bytes()
        )


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def run(main: Callable[[Sequence[str]], int], home: Path, *words: str, **environment: str) -> Done:
    """Runs a command line in this process: starting one takes longer than all it does."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLUSTER")}
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, kept | {"HOME": str(home), **environment}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = main(words)
        except SystemExit as left:
            code = int(left.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


@dataclass
class Served:
    """The daemon, and where it is."""

    directory: Path
    pki: Pki
    tls: str  # HOST:PORT where tokens are asked for,
    mtls: str  # certificates,
    plaintext: str  # nothing: everybody there is a viewer
    metrics: str
    process: subprocess.Popen[bytes]

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def token(self, name: str, role: str, lasts: float = 0) -> str:
        """A new token."""
        with grpc.insecure_channel(f"unix:{self.state}/clusterdep.sock") as channel:
            request = pb.AddTokenRequest(name=name, role=role, lasts=lasts)
            return str(rpc.AdminStub(channel).AddToken(request, timeout=10).secret)

    def revoke(self, name: str) -> bool:
        """Whether a token counted until now."""
        with grpc.insecure_channel(f"unix:{self.state}/clusterdep.sock") as channel:
            request = pb.RevokeTokenRequest(name=name)
            return bool(rpc.AdminStub(channel).RevokeToken(request, timeout=10).revoked)

    def cli(self, *words: str, **environment: str) -> Done:
        """`clusterdep WORDS`, of a user who has nothing but these variables."""
        return run(cli.main, self.directory, *words, **environment)


def start(directory: Path, pki: Pki, server: tuple[Path, Path]) -> Served:
    """Starts one and waits until it serves."""
    ports = [free_port(), free_port(socket.AF_INET6), free_port(), free_port()]
    config = directory / "clusterdep.toml"
    config.write_text(
        f"""
        state = "{directory}/state"
        listen = ["tls:127.0.0.1:{ports[0]}", "mtls:[::1]:{ports[1]}",
                  "plaintext:127.0.0.1:{ports[2]}"]
        insecure_plaintext = "viewer"
        tls_certificate = "{server[0]}"
        tls_key = "{server[1]}"
        tls_client_ca = "{pki.ca}"
        tls_revoked = "ca/revoked"
        metrics = "127.0.0.1:{ports[3]}"
        log_level = "debug"
        """
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "clusterdep", "serve", "--config", str(config)], stderr=log
        )
    served = Served(
        directory,
        pki,
        f"localhost:{ports[0]}",
        f"[::1]:{ports[1]}",
        f"127.0.0.1:{ports[2]}",
        f"127.0.0.1:{ports[3]}",
        process,
    )
    give_up = time.monotonic() + 30
    while "serving at" not in served.log:
        assert process.poll() is None and time.monotonic() < give_up, served.log
        time.sleep(0.02)
    return served


def stop(served: Served) -> None:
    """As an operator does."""
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(20) == 0, served.log


def bearer(secret: str) -> list[tuple[str, str]]:
    """The metadata that shows a token."""
    return [("authorization", f"Bearer {secret}")]


def call(
    channel: grpc.Channel, method: str, secret: str = "", message: bytes = b""
) -> tuple[grpc.StatusCode, str]:
    """Calls a method of any kind with one message; code and details.

    One that has answered and goes on counts as OK.
    """
    metadata = bearer(secret) if secret else []
    calls: Any = channel.stream_stream(method)(iter([message]), metadata=metadata, timeout=10)
    try:
        for _ in calls:
            if method.rpartition("/")[2] in ("Watch", "WatchTokens"):
                calls.cancel()
                return grpc.StatusCode.OK, ""
    except grpc.RpcError as error:
        return error.code(), str(error.details())  # type: ignore[attr-defined]
    return grpc.StatusCode.OK, ""
