"""The dispatcher over TLS: to clusterdep with a certificate, and for people with tokens."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tls_daemon import HOSTS, NOW, Done, Pki, Served, bearer, call, free_port, run, start, stop

from clusterbuild import cli
from clusterbuild.api.v1 import clusterbuild_pb2 as pb
from clusterbuild.api.v1 import clusterbuild_pb2_grpc as rpc
from clusterdep.api.roles import NEEDED, ROLES
from clusterdep.authority import wanted_again

OURS = sorted(m for m in NEEDED if m.startswith(("/clusterbuild", "/grpc")))
UNKNOWN = grpc.StatusCode.UNAUTHENTICATED


@dataclass
class Dispatcher:
    directory: Path
    tls: str
    mtls: str
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.directory / "build.log").read_text()

    def cli(self, *words: str) -> Done:
        return run(cli.main, self.directory, *words)


def until(true: Callable[[], object], log: Callable[[], str]) -> None:
    give_up = time.monotonic() + 30
    while not true():
        assert time.monotonic() < give_up, log()
        time.sleep(0.05)


def start_dispatcher(directory: Path, pki: Pki, clusterdep: str) -> Dispatcher:
    ports = [free_port(), free_port()]
    # Of a client and of a daemon at once: what clusterdep is shown, and people are.
    chain, key = pki.issue("farm", "builder", HOSTS)
    config = directory / "clusterbuild.toml"
    config.write_text(
        f"""
        state = "{directory}/build"
        dispatcher = "farm"
        clusterdep = "{clusterdep}"
        clusterdep_ca = "ca/ca.crt"
        clusterdep_certificate = "{chain.name}"
        clusterdep_key = "{key.name}"
        listen = ["tls:127.0.0.1:{ports[0]}", "mtls:127.0.0.1:{ports[1]}"]
        tls_certificate = "{chain.name}"
        tls_key = "{key.name}"
        tls_client_ca = "ca/ca.crt"
        """
    )
    with (directory / "build.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "clusterbuild", "serve", "--config", str(config)], stderr=log
        )
    made = Dispatcher(directory, f"localhost:{ports[0]}", f"localhost:{ports[1]}", process)
    until(lambda: "serving at" in made.log or process.poll() is not None, lambda: made.log)
    assert process.poll() is None, made.log
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("dep")
    pki = Pki(directory)
    served = start(directory, pki, pki.issue("server", hosts=HOSTS))
    yield served
    if served.process.poll() is None:
        stop(served)


@pytest.fixture(scope="module")
def dispatcher(served: Served) -> Iterator[Dispatcher]:
    made = start_dispatcher(served.directory, served.pki, served.mtls)
    until(lambda: "connected to clusterdep" in made.log, lambda: made.log)
    yield made
    made.process.send_signal(signal.SIGTERM)
    assert made.process.wait(20) == 0, made.log


@pytest.fixture(scope="module")
def channel(served: Served, dispatcher: Dispatcher) -> Iterator[grpc.Channel]:
    with grpc.secure_channel(dispatcher.tls, served.pki.show()) as channel:
        yield channel


def known(channel: grpc.Channel, secret: str) -> bool:
    return call(channel, "/clusterbuild.v1.Status/Get", secret)[0] is not UNKNOWN


def test_each_role_may_what_the_table_says(
    served: Served, dispatcher: Dispatcher, channel: grpc.Channel
) -> None:
    for role in ROLES:
        secret = served.token(f"b-{role}", role)
        until(lambda: known(channel, secret), lambda: dispatcher.log)  # noqa: B023
        pair = served.pki.issue(f"b-{role}", role)
        with grpc.secure_channel(dispatcher.mtls, served.pki.show(pair)) as certified:
            for method in OURS:
                for code, details in (call(channel, method, secret), call(certified, method)):
                    if ROLES.index(role) < ROLES.index(NEEDED[method]):
                        assert code is grpc.StatusCode.PERMISSION_DENIED
                        assert f"needs the role {NEEDED[method]}" in details
                    else:
                        assert code not in (grpc.StatusCode.PERMISSION_DENIED, UNKNOWN), details
    for method in OURS:
        code, details = call(channel, method)
        assert code is UNKNOWN and "no token came with the call" in details


def test_a_token_revoked_at_clusterdep_is_revoked_here(
    served: Served, dispatcher: Dispatcher, channel: grpc.Channel
) -> None:
    secret = served.token("page", "viewer")
    until(lambda: known(channel, secret), lambda: dispatcher.log)
    watch = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(), metadata=bearer(secret), timeout=30
    )
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    served.revoke("page")
    with pytest.raises(grpc.RpcError) as caught:
        next(watch)
    assert caught.value.code() is UNKNOWN
    assert "token page counts no more" in caught.value.details()
    assert not known(channel, secret)


def test_people_ask_from_another_machine(
    served: Served, dispatcher: Dispatcher, channel: grpc.Channel, tmp_path: Path
) -> None:
    secret = served.token("alice", "viewer")
    until(lambda: known(channel, secret), lambda: dispatcher.log)
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(secret)
    shown = ("--ca", str(served.pki.ca), "--token-file", str(file))
    done = dispatcher.cli("status", "--address", dispatcher.tls, *shown)
    assert done.returncode == 0, done
    assert f"clusterdep at {served.mtls}" in done.stdout or served.mtls in done.stdout
    done = dispatcher.cli("stop", "--address", dispatcher.tls, *shown)
    assert done.returncode == 77
    assert "Stop needs the role admin, and token alice has viewer" in done.stderr
    done = dispatcher.cli("status", "--address", dispatcher.mtls, *shown)
    assert done.returncode == 77 and "wants a certificate, and none was shown" in done.stderr
    assert dispatcher.cli("status", "--state", str(served.directory / "build")).returncode == 0


def test_a_dispatcher_that_is_not_let_in_says_why_and_comes_back(
    served: Served, dispatcher: Dispatcher, channel: grpc.Channel
) -> None:
    state = f"unix:{served.directory}/build/clusterbuild.sock"

    def status() -> pb.StatusResponse:
        with grpc.insecure_channel(state) as socket:
            return rpc.StatusStub(socket).Get(pb.GetRequest(), timeout=10)

    assert status().connected
    chain = served.directory / "farm.crt"
    served.pki.authority.revoke(chain, NOW)
    until(lambda: "the certificate farm was revoked" in status().clusterdep, lambda: dispatcher.log)
    assert not status().connected
    served.pki.authority.issue(wanted_again(chain, 3), served.directory, NOW, renew=True)
    until(lambda: status().connected, lambda: dispatcher.log)


def test_tokens_count_on_while_clusterdep_is_away(
    served: Served, dispatcher: Dispatcher, channel: grpc.Channel
) -> None:
    secret = served.token("stays", "viewer")
    until(lambda: known(channel, secret), lambda: dispatcher.log)
    stop(served)
    assert call(channel, "/clusterbuild.v1.Status/Get", secret)[0] is grpc.StatusCode.OK
    assert not known(channel, "cdt_" + "A" * 43)
    assert secret not in dispatcher.log


def test_no_token_counts_before_clusterdep_was_reached(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    made = start_dispatcher(tmp_path, pki, "localhost:1")
    with grpc.secure_channel(made.tls, pki.show()) as channel:
        code, details = call(channel, "/clusterbuild.v1.Status/Get", "cdt_" + "A" * 43)
        assert code is grpc.StatusCode.UNAVAILABLE and "clusterdep was not reached" in details
    said = "nothing answers at localhost:1: Connection refused"
    until(lambda: said in made.log, lambda: made.log)
    made.process.send_signal(signal.SIGTERM)
    assert made.process.wait(20) == 0, made.log
