"""The page as a stranger uses it: the real command in a real browser, and what its server does with everyone else."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from fair_adaptors.adaptor.bases import EMBEDDED
from fair_adaptors.app.page import listen, require_gradio
from fair_adaptors.errors import ConfigError, MissingExtraError
from fair_adaptors.evaluation.metrics import noise_floor
from tests.browser import Browser

CLEANER = "A photo of the face of a hospital cleaner, a person"
FOLDER = str(EMBEDDED / "sandbox-gender")
HOSTILE = "<img src=x onerror=\"document.title='caught'\"> {{ 7*7 }} ${7*7} nurse"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real command. Ctrl-C in the midst of a drawing has to end it well and quietly, and leave nothing behind."""
    temporary = tmp_path_factory.mktemp("temporary")
    words = ["app", "--no-browser", "--port", "0", "--adaptor", FOLDER]
    with subprocess.Popen(
        [sys.executable, "-m", "fair_adaptors", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("The page is http://127.0.0.1:"), said
            address = said.split()[3]
            yield address
            with drawing(address):
                process.send_signal(signal.SIGINT)
                _, complaints = process.communicate(timeout=90)
        finally:
            process.kill()
    assert (process.returncode, complaints) == (0, "")
    assert not [left.name for left in temporary.iterdir() if "torch" not in left.name]


@contextmanager
def drawing(url: str, images: int = 64) -> Iterator[None]:
    """A drawing that has begun, and is watched."""
    functions = json.loads(send(url, "/config")[1])["dependencies"]
    number = next(one["id"] for one in functions if one["api_name"] == "compare")
    request = {"fn_index": number, "session_hash": "visitor", "data": [CLEANER, ["sandbox-gender"], 1, images, 99]}
    asked = json.dumps(request).encode()
    send(url, "/gradio_api/queue/join", "POST", asked, **{"Content-Type": "application/json"})
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("GET", "/gradio_api/queue/data?session_hash=visitor")
    with connection.getresponse() as response:
        while b'"progress_data"' not in (line := response.readline()):
            assert line
        yield
    connection.close()


class Page:
    """The page in a window; it has to stay without anything to complain of."""

    def __init__(self, browser: Browser, url: str, **window: Any):
        self.browser = browser
        browser.problems.clear()
        browser.open(url, **window)
        browser.wait(f"{self.button('Compare')} !== undefined")
        browser.wait("document.querySelector('.found h3') !== null", seconds=120)  # the example that it opens with

    @staticmethod
    def button(name: str) -> str:
        return f"[...document.querySelectorAll('button')].find(button => button.innerText.trim() === '{name}')"

    def press(self, name: str) -> None:
        self.browser.run(f"{self.button(name)}.click()")

    def fill(self, selector: str, value: str) -> None:
        """Type into a field, as Svelte notices it."""
        self.browser.run(
            f"(field => {{ field.value = {json.dumps(value)}; for (const kind of ['input', 'change', 'blur'])"
            f" field.dispatchEvent(new Event(kind, {{bubbles: true}})); }})(document.querySelector({selector!r}))"
        )

    def compare(self, images: int) -> dict[str, list[str]]:
        """Draw, and return the addresses of the pictures, which are hashes of their bytes."""
        self.fill("[aria-label='number input for Images']", str(images))
        self.browser.run("document.querySelector('.found')?.classList.add('old')")
        self.press("Compare")
        self.browser.wait("document.querySelector('.found:not(.old)') !== null")
        for side in ("was", "now"):
            self.browser.wait(f"document.querySelectorAll('.{side} .grid-container img').length === {images}")
        return {side: self.list(f".{side} .grid-container img", "src") for side in ("was", "now")}

    def list(self, selector: str, attribute: str = "innerText") -> Any:
        return self.browser.run(f"[...document.querySelectorAll({selector!r})].map(one => one.{attribute})")


def test_the_page_draws_the_same_noise_before_and_after_and_counts_it(url: str, browser: Browser) -> None:
    page = Page(browser, url)
    drawn = page.compare(5)
    assert all(before != after for before, after in zip(drawn["was"], drawn["now"], strict=True))
    browser.wait("[...document.querySelectorAll('.grid-container img')].every(image => image.naturalWidth === 64)")
    assert page.list(".found h3", "textContent") == [
        "Gender aimed at", "Tone not aimed at", "Age not aimed at", "What should stay"
    ]  # fmt: skip
    counts = browser.run(
        "[...document.querySelectorAll('.found tbody')].map(body => [1, 2].map(side => "
        "[...body.rows].map(row => Number(row.cells[side].innerText))))"
    )
    assert np.sum([counts[0], counts[2]], axis=2).tolist() == [[5, 5], [5, 5]]
    for side, (females, _) in zip(("was", "now"), counts[0], strict=True):
        captions = page.list(f".{side} .caption-label")
        assert [caption.rstrip("?") for caption in captions].count("female") == females
    shown = browser.run("document.querySelector('.found').innerText")
    assert CLEANER in shown and "5 images say little" in shown
    assert f"noise floor\t{noise_floor(5, 2):.2f}" in shown
    assert browser.problems == []


def test_the_page_says_what_it_is_and_opens_with_an_example(url: str, browser: Browser) -> None:
    page = Page(browser, url)
    assert page.list("h1") == ["fair-adaptors"] and "show people fairly" in page.list(".lead")[0]
    assert [len(page.list(f".{side} .grid-container img")) for side in ("was", "now")] == [16, 16]
    assert page.list(".found h2") == page.list("textarea", "value")
    shown = browser.run("document.querySelector('.found').innerText")
    for figure in ("bias", "classes shown, of 2", "shift from before", "right occupation", "distance of two images"):
        assert f"{figure}\t" in shown
    assert browser.problems == []


def test_one_drawing_is_made_at_a_time_and_who_waits_sees_their_place(url: str, browser: Browser) -> None:
    page = Page(browser, url)
    page.fill("[aria-label='number input for Images']", "2")
    with drawing(url, 24):
        page.press("Compare")
        browser.wait("document.querySelector('.side')?.innerText.match(/queue: 1\\/1/) !== null")
    browser.wait("document.querySelectorAll('.was .grid-container img').length === 2", seconds=120)
    assert browser.problems == []


def test_strength_0_is_the_model_as_it_is(url: str, browser: Browser) -> None:
    page = Page(browser, url)
    page.fill("[aria-label='number input for Strength']", "0")
    drawn = page.compare(3)
    assert drawn["was"] == drawn["now"]
    assert browser.problems == []


def test_another_seed_is_other_noise(url: str, browser: Browser) -> None:
    page = Page(browser, url)
    first = page.compare(2)
    page.press("New seed")
    browser.wait("document.querySelector('[aria-label=Seed]').value !== '0'")
    assert not {*first["was"]} & {*page.compare(2)["was"]}


def test_a_prompt_stays_text(url: str, browser: Browser) -> None:
    page = Page(browser, url)
    page.fill("textarea", HOSTILE)
    page.compare(1)
    assert page.list(".found h2") == [HOSTILE]
    assert browser.run("document.title") == "fair-adaptors: before and after"
    assert browser.problems == []


def test_a_wrong_input_is_told_in_the_page_and_the_pictures_stay(url: str, browser: Browser) -> None:
    page = Page(browser, url)
    drawn = page.compare(2)
    page.fill("textarea", " ")
    page.press("Compare")
    browser.wait("document.body.innerText.includes('the prompt is empty: write what to draw')")
    browser.wait("document.querySelector('.side .error') !== null")
    assert not browser.run("document.querySelector('.side .error').checkVisibility()")
    assert page.list(".was .grid-container img", "src") == drawn["was"]
    page.fill("textarea", CLEANER)
    browser.run("document.querySelector('input[name=sandbox-gender]').click()")
    page.press("Compare")
    browser.wait("document.body.innerText.includes('no adaptor is chosen')")
    assert browser.problems == []


def test_a_drawing_can_be_stopped_or_left_and_the_next_one_begins_at_once(url: str, browser: Browser) -> None:
    for leave in (lambda page: page.press("Stop"), lambda page: Page(browser, url)):
        page = Page(browser, url)
        page.press("New seed")
        page.fill("[aria-label='number input for Images']", "64")
        page.press("Compare")
        browser.wait("document.body.innerText.includes('8/128 images')")
        leave(page)
        browser.wait("!document.body.innerText.includes('128 images')")
        started = time.monotonic()
        page.compare(1)
        assert time.monotonic() - started < 8


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_page_fits_in_light_and_dark_and_on_a_telephone(
    url: str, browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    page = Page(browser, url, width=width, dark=dark)
    page.compare(4)
    assert browser.run("document.documentElement.scrollWidth") <= width
    red, green, blue = re.findall(r"\d+", browser.run("getComputedStyle(document.body).backgroundColor"))[:3]
    assert (int(red) + int(green) + int(blue) < 3 * 128) == dark
    browser.screenshot(tmp_path / "page.png")
    assert browser.problems == []


def send(url: str, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request(method, path, body, headers | {"Connection": "close"})
    with connection.getresponse() as response:
        return response.status, response.read().decode(), response.headers


def test_other_pages_and_names_pointed_at_this_machine_are_refused(url: str) -> None:
    own = urlsplit(url).netloc
    for path, method in (("/", "GET"), ("/config", "GET"), ("/gradio_api/queue/join", "POST")):
        assert send(url, path, method, Host="evil.example")[0] == 403
        for origin in ("http://evil.example", f"https://evil.example:{own.split(':')[1]}", "null"):
            assert send(url, path, method, Origin=origin)[0] == 403
    assert send(url, "/", Origin=f"http://{own}")[0] == 200
    assert send(url, "/", Host=f"localhost:{own.split(':')[1]}")[0] == 200
    assert send(url, "/gradio_api/file=/etc/passwd")[0] == 403


def test_the_page_names_no_other_host_for_its_parts_and_may_load_nothing_from_one(url: str) -> None:
    _, page, headers = send(url, "/")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?(?:https?:)?//", page)
    assert not re.findall(r"@import|@font-face|url\(.?(?:https?:)?//", send(url, "/theme.css")[1])
    assert [send(url, path)[0] for path in ("/docs", "/redoc", "/openapi.json", "/monitoring")] == [404, 404, 404, 403]


def test_a_port_that_is_taken_is_a_readable_error() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(ConfigError, match="cannot listen on 127.0.0.1 port"):
        listen("127.0.0.1", first.getsockname()[1])
    with pytest.raises(ConfigError, match="cannot listen on no.such.host.invalid"):
        listen("no.such.host.invalid", 0)


def test_without_gradio_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[app\]"):
        require_gradio()
