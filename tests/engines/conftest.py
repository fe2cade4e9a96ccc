"""What the tests of the engines share: fakes of the tree, and the local engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.append(str(Path(__file__).resolve().parent.parent / "on_host"))

from clusterbuild.engines.host import HostEngine
from clusterbuild.engines.local import local_engine


@pytest.fixture
def top() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="engine"))
    path.chmod(0o755)
    yield path
    subprocess.run(["chmod", "-R", "u+rwX", str(path)], check=False)
    shutil.rmtree(path)


@pytest_asyncio.fixture
async def engine(top: Path) -> AsyncIterator[HostEngine]:
    """The local engine; whatever it still has at the end is cleaned."""
    engine = local_engine(top / "base")
    yield engine
    for state in await engine.look():
        await engine.clean(state.attempt)
    await engine.close()
    assert not list((top / "base").glob("slots/*.holder"))
