"""olah, a Hub mirror that others wrote, over the same git repositories: it judges what was published."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(sys.prefix) / "olah" / "bin" / "olah-cli"
"""Where ``make test-slow`` installs it, in an environment of its own: it needs other versions of packages."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(repositories: Path, work: Path) -> Iterator[str]:
    """Serve repositories laid out as ``models/ORG/NAME`` and give the address."""
    port = _free_port()
    work.mkdir(parents=True, exist_ok=True)
    config = work / "olah.toml"
    config.write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{work / "cache"}"\n'
        f'mirrors-path = ["{repositories}"]\n[accessibility]\noffline = true\n'
    )
    with (work / "output.txt").open("wb") as output:
        command = [str(PROGRAM), "--config", str(config), "--log-path", str(work / "logs")]
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
