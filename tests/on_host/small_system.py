"""A small system to make roots of: busybox, a shell, bmake, and the libraries they need."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

#: Programs that are taken as they are here; the rest is busybox.
PROGRAMS = ("bmake", "unshare", "umount", "chattr", "busybox")
#: su without what the real one needs: su -s SHELL USER -c WORDS, USER being nobody.
SU = '#!/bin/sh\nexec unshare -G 65534 -S 65534 /bin/sh -c "$5"\n'


def libraries(program: str) -> list[str]:
    """The files a program is linked with."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    words = [line.split("=>")[-1].split()[0] for line in said.splitlines()]
    return [word for word in words if word.startswith("/")]


def put(root: Path, source: str, target: str = "") -> None:
    """Copies a file with its libraries into the system."""
    for name in (source, *libraries(source)):
        copy = root / (target if target and name == source else name).lstrip("/")
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, copy)


def small_system(root: Path, shell: str = "dash") -> Path:
    """Makes it, with `shell` as /bin/sh."""
    for directory in ("bin", "usr/bin", "usr/sbin", "usr/share", "etc", "home"):
        (root / directory).mkdir(parents=True)
    for name in PROGRAMS:
        put(root, str(shutil.which(name)), f"/usr/bin/{name}")
    if shell == "busybox":
        (root / "bin/sh").symlink_to("/usr/bin/busybox")
    else:
        put(root, str(shutil.which(shell)), "/bin/sh")
    listed = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        program = root / "usr/bin" / name
        if name != "sh" and not program.exists():
            program.symlink_to("/usr/bin/busybox")
    shutil.copytree("/usr/share/bmake", root / "usr/share/bmake", symlinks=True)
    (root / "usr/bin/su").write_text(SU)
    (root / "usr/bin/su").chmod(0o755)
    if Path("/usr/share/mk").exists():
        shutil.copytree("/usr/share/mk", root / "usr/share/mk", symlinks=True)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
    )
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    return root
