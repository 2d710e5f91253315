"""olah, a Hub mirror that others wrote, over the same git repositories: it judges what was published."""

import fcntl
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "0.5.4"


WITHOUT = "FAIR_ADAPTORS_TEST_WITHOUT_OLAH"
"""Environment variable: 1 to leave out what olah judges, on a machine that cannot install it."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def install() -> Path:
    """Return olah's program, in its own environment in the user's cache, made on first use."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fair-adaptors-tests"
    home = root / f"olah-{VERSION}-python{sys.version_info.major}.{sys.version_info.minor}"
    program, done = home / "bin" / "olah-cli", home / "installed"
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.is_file():
            _run(sys.executable, "-m", "venv", "--clear", str(home))
            _run(str(home / "bin" / "pip"), "install", "--quiet", f"olah=={VERSION}")
            done.touch()
    return program


def _run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if ran.returncode:
        said = ran.stderr.strip()[-500:]
        raise RuntimeError(f"{' '.join(command[-3:])}: {said}\nWithout a package index set {WITHOUT}=1.")


@contextmanager
def serve(repositories: Path, work: Path) -> Iterator[str]:
    """Serve repositories laid out as ``models/ORG/NAME`` and give the address."""
    program, port = install(), _free_port()
    work.mkdir(parents=True, exist_ok=True)
    config = work / "olah.toml"
    config.write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{work / "cache"}"\n'
        f'mirrors-path = ["{repositories}"]\n[accessibility]\noffline = true\n'
    )
    with (work / "output.txt").open("wb") as output:
        command = [str(program), "--config", str(config), "--log-path", str(work / "logs")]
        process = subprocess.Popen(command, cwd=work, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, process, work / "output.txt")
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(url: str, process: "subprocess.Popen[bytes]", output: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"olah ended: {output.read_text(errors='replace')[-2000:]}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("olah does not answer")
