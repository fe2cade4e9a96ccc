"""Generates the protocol modules from proto/ whenever the project is built or installed."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: Where each file of proto/ becomes a module of ours.
PROTOCOLS = {
    "clusterdep/v1/clusterdep.proto": "clusterdep/api/v1",
    "clusterbuild/v1/clusterbuild.proto": "clusterbuild/api/v1",
}


def generate(target: Path) -> None:
    """Writes the generated modules below `target`; raises SystemExit if protoc refuses."""
    from grpc_tools import protoc  # present at build time only

    for source, package in PROTOCOLS.items():
        directory = ROOT / "proto" / Path(source).parent
        (target / package).mkdir(parents=True, exist_ok=True)
        status = protoc.main(
            [
                "protoc",
                f"-I{package}={directory}",
                f"--python_out={target}",
                f"--pyi_out={target}",
                f"--grpc_python_out={target}",
                f"{package}/{Path(source).name}",
            ]
        )
        if status:
            raise SystemExit(f"protoc failed on proto/{source} (exit status {status})")


class BuildWithProtocol(build_py):
    """build_py, after the protocol modules were made."""

    def run(self) -> None:
        # Into the source tree for an editable install, else beside the copied modules.
        generate(ROOT if self.editable_mode else Path(self.build_lib))
        super().run()


if __name__ == "__main__":
    if sys.argv[1:] == ["generate"]:
        generate(ROOT)
    else:
        setup(cmdclass={"build_py": BuildWithProtocol})
