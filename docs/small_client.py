#!/usr/bin/env python3
"""A whole build client on one page, written from proto/clusterdep/v1/clusterdep.proto alone.

    small_client.py ADDRESS COMMAND

takes one job from the clusterdep at ADDRESS (unix:PATH), runs COMMAND with a shell, and
reports. COMMAND finds the job in its environment (PKGNAME, PKGPATH, REQUIREMENTS, …),
its scan record on standard input, and leaves the package at $OUT; it says how it went by
its exit code. Needs grpcio and grpcio-tools, and nothing of this project but the file.
"""

import hashlib
import importlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import grpc
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent.parent / "proto"
NAME = "small-client"


def protocol(directory):
    """The modules that protoc makes of the contract."""
    file = "clusterdep/v1/clusterdep.proto"
    out = [f"--{kind}_out={directory}" for kind in ("python", "grpc_python")]
    if protoc.main(["protoc", f"-I{PROTO}", *out, file]):
        sys.exit("protoc does not take the contract")
    sys.path.insert(0, directory)
    return [importlib.import_module(f"clusterdep.v1.clusterdep_pb2{x}") for x in ("", "_grpc")]


def host(pb, free):
    """One host with one slot: this machine."""
    system = os.uname()
    return pb.HostOffer(
        name=system.nodename,
        state=pb.HOST_STATE_READY,
        slots=1,
        free_slots=free,
        opsys=system.sysname,
        machine_arch=system.machine,
    )


def build(pb, grant, command, out):
    """Runs the command; returns a Result."""
    environment = os.environ | {
        "PKGNAME": grant.pkgname,
        "PKGPATH": grant.pkgpath,
        "PREFIX": grant.profile.prefix,
        "MAKE_VARIABLES": " ".join(grant.make_variables),
        "REQUIREMENTS": " ".join(r.pkgname for r in grant.requirements if r.direct),
        "OUT": str(out),
    }
    done = subprocess.run(["sh", "-c", command], input=grant.record, env=environment, check=False)
    if done.returncode:
        return pb.Result(
            attempt=grant.attempt,
            fence=grant.fence,
            blame=pb.BLAME_PACKAGE,
            stage="build",
            message=f"the command exited with {done.returncode}",
        )
    content = out.read_bytes()
    artifact = pb.Artifact(
        pkgname=grant.pkgname,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        summary=f"PKGNAME={grant.pkgname}\n".encode(),
        suffix=".tgz",
    )
    return pb.Result(attempt=grant.attempt, fence=grant.fence, built=True, artifact=artifact)


def main():
    """One job, from the offer to the verdict."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    address, command = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory, grpc.insecure_channel(address) as channel:
        pb, rpc = protocol(directory)
        work = rpc.WorkStub(channel)
        answer = work.Exchange(
            pb.ExchangeRequest(dispatcher=NAME, hosts=[host(pb, 1)], wait_seconds=10)
        )
        if not answer.grants:
            sys.exit("there is nothing to build")
        grant = answer.grants[0]
        holding = [pb.Holding(attempt=grant.attempt, fence=grant.fence)]
        done = threading.Event()

        def renew():
            while not done.wait(answer.renew_seconds):
                work.Exchange(
                    pb.ExchangeRequest(dispatcher=NAME, hosts=[host(pb, 0)], holding=holding)
                )

        keeper = threading.Thread(target=renew)
        keeper.start()
        result = build(pb, grant, command, Path(directory) / "package")
        done.set()
        keeper.join()
        answer = work.Exchange(
            pb.ExchangeRequest(dispatcher=NAME, hosts=[host(pb, 0)], results=[result])
        )
        verdict = pb.Verdict.Kind.Name(answer.verdicts[0].kind)[5:].lower()
        print(f"{grant.pkgname}: {'built' if result.built else result.message}, {verdict}")
        return 0 if result.built else 1


if __name__ == "__main__":
    sys.exit(main())
