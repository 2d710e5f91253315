"""Screenshots of the interactive page, of a report and of the built documentation, to be looked at after a change.

    python -m benchmarks.screenshots FOLDER [--report REPORT.html] [--site build/site]

Each is taken at 1280 and 390 pixels, light and dark. The page is the sandbox's, as `fair-adaptors app` starts it.
Without `--report` a small evaluation of the sandbox is made. It needs Chromium.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tests.browser import CHROMIUM, Browser

WIDTHS = (1280, 390)
DRAWN = (
    "document.querySelector('.found h3') !== null && document.querySelectorAll('.side img').length > 1"
    " && [...document.images].every(image => image.naturalWidth > 0)"
)
"""Tells that the page has its first example."""
ASK = ["--adaptor", "sandbox-gender", "-n", "24", "--prompts", "sandbox-validation"]


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--site", type=Path)
    asked = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no Chromium on this machine: install it, such as with `apt install chromium`")
    asked.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, Browser(Path(temporary) / "profile") as browser:
        with running_page() as address:
            take(browser, address, asked.folder, "page", until=DRAWN)
        report = asked.report or evaluated(Path(temporary) / "audit")
        take(browser, report, asked.folder, "report")
        if asked.site:
            with served(asked.site) as address:
                for file in sorted(asked.site.glob("*.html")):
                    take(browser, address + file.name, asked.folder, f"docs-{file.stem}")


def take(browser: Browser, page: Path | str, folder: Path, name: str, *, until: str = "true") -> None:
    """Save whole pages, wide and narrow, light and dark; say what the browser complains of, and what sticks out."""
    for width, dark in itertools.product(WIDTHS, (False, True)):
        browser.open("about:blank")
        browser.problems.clear()
        browser.call("Storage.clearDataForOrigin", origin="*", storageTypes="local_storage")  # of a chosen colour
        browser.open(page, width=width, dark=dark)
        browser.wait(until, seconds=600)
        path = folder / f"{name}-{width}-{'dark' if dark else 'light'}.png"
        browser.screenshot(path)
        wide = browser.run("document.documentElement.scrollWidth")
        print(f"{path}{f': {wide} pixels wide' if wide > width else ''}", *browser.problems, sep="\n  ", flush=True)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as a site is served, and yield its address."""
    handler = partial(Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Silent(SimpleHTTPRequestHandler):
    """Serves files, and does not tell of each."""

    def log_message(self, *_: object) -> None:
        pass


def evaluated(folder: Path) -> Path:
    """Evaluate the sandbox, and return the report."""
    words = [sys.executable, "-m", "fair_adaptors", "evaluate", "sandbox", *ASK, "--out", str(folder)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return folder / "report.html"


@contextmanager
def running_page() -> Iterator[str]:
    """Start the page, and yield its address."""
    words = [sys.executable, "-m", "fair_adaptors", "app", "--no-browser", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[3]
        finally:
            process.kill()


if __name__ == "__main__":
    main()
