"""The page as a stranger uses it: the real command, real requests, and a real browser where there is one."""

import base64
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from fair_adaptors.app import AppServer
from fair_adaptors.errors import ConfigError, FairAdaptorError
from fair_adaptors.evaluation.metrics import noise_floor
from fair_adaptors.evaluation.studio import MAX_STRENGTH, Studio
from fair_adaptors.registry import EMBEDDED

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NURSE = "A photo of the face of a hospital nurse, a person"
REQUEST = {"prompt": NURSE, "adaptors": ["sandbox-gender"], "strength": 1, "images": 4, "seed": 0}
Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The real command, offering a folder too. Ctrl-C in the midst of a drawing has to end it well and quietly."""
    words = ["app", "--no-browser", "--port", "0", "--adaptor", str(EMBEDDED / "sandbox-gender")]
    with subprocess.Popen(
        [sys.executable, "-m", "fair_adaptors", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
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


@contextmanager
def drawing(url: str, **changes: Any) -> Iterator[None]:
    """A drawing of 64 images that has begun, and that nobody waits for at the end of the block."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    request = REQUEST | {"images": 64, "seed": 99} | changes
    connection.request("POST", "/compare", json.dumps(request), {"Content-Type": "application/json"})
    with connection.getresponse() as response:
        assert response.readline().startswith(b'{"done": 0, ')
        yield
    connection.close()


def send(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    with connection.getresponse() as response:
        return response.status, response.read(), dict(response.headers)


def events(url: str, **changes: Any) -> Events:
    body = send(url, "POST", "/compare", json.dumps(REQUEST | changes).encode(), Content_Type="application/json")[1]
    return [json.loads(line) for line in body.splitlines()]


def drawn(url: str, **changes: Any) -> dict[str, Any]:
    *progress, last = events(url, **changes)
    assert set(last) == {"result"}, last
    steps = [event for event in progress if "done" in event]
    assert steps[0]["done"] == 0 and steps[-1]["done"] == steps[-1]["total"] > 0
    return last["result"]


def test_the_same_noise_is_drawn_without_and_with_the_adaptor(url: str) -> None:
    result = drawn(url)
    assert len(result["before"]) == len(result["after"]) == 4
    assert all(before != after for before, after in zip(result["before"], result["after"], strict=True))
    with Image.open(io.BytesIO(base64.b64decode(result["after"][0].partition(",")[2]))) as picture:
        assert picture.size == (64, 64)


def test_the_same_request_is_the_same_answer_and_another_seed_another(url: str) -> None:
    first = drawn(url, strength=0.7)
    assert drawn(url, strength=0.7) == first
    other = drawn(url, strength=0.7, seed=1)
    assert not set(other["before"]) & set(first["before"])


def test_strength_0_is_the_model_as_it_is_also_after_another_adaptor(url: str) -> None:
    drawn(url, adaptors=["sandbox-gender-tone"], strength=MAX_STRENGTH)
    result = drawn(url, adaptors=["sandbox-gender", "sandbox-gender-tone"], strength=0, seed=2)
    assert result["after"] == result["before"]
    assert all(before == after for counts in result["counts"].values() for before, after in counts.values())


def test_every_image_is_counted_once_per_attribute(url: str) -> None:
    result = drawn(url, images=9)
    assert set(result["counts"]) == {"gender", "tone", "age"}
    for name, counts in result["counts"].items():
        assert np.sum(list(counts.values()), axis=0).tolist() == [9, 9]
        assert result["bias"][name]["floor"] == noise_floor(9, len(counts))
    female, male = (np.array(counts) for counts in result["counts"]["gender"].values())
    gender = result["bias"]["gender"]
    assert [gender["before"], gender["after"]] == pytest.approx(abs(female - male) / 9)


def test_an_adaptor_of_the_command_line_is_offered_and_is_the_one_of_that_folder(url: str) -> None:
    folder = str(EMBEDDED / "sandbox-gender")
    options = json.loads(send(url, "GET", "/options")[1])
    assert [adaptor["key"] for adaptor in options["adaptors"]] == ["sandbox-gender", "sandbox-gender-tone", folder]
    assert options["adaptors"][0]["summary"] == "gender: female 50%, male 50%"
    assert drawn(url, adaptors=[folder]) == drawn(url, adaptors=["sandbox-gender"])


def test_the_images_before_are_kept(url: str) -> None:
    assert events(url, seed=7)[0] == {"done": 0, "total": 8}
    assert events(url, seed=7, strength=0.5)[0] == {"done": 0, "total": 4}


def test_requests_at_once_do_not_mix_adaptors(url: str) -> None:
    choices = [["sandbox-gender"], ["sandbox-gender-tone"], ["sandbox-gender", "sandbox-gender-tone"]]
    alone = [drawn(url, adaptors=choice, images=8) for choice in choices]
    together: list[Any] = [None] * len(choices)

    def ask(index: int) -> None:
        together[index] = drawn(url, adaptors=choices[index], images=8)

    with drawing(url, images=16):
        assert events(url)[0] == {"waiting": True}
    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(choices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_browser_that_goes_away_ends_its_drawing_and_leaves_no_adaptor(url: str) -> None:
    expected = drawn(url, seed=11, images=2)
    with drawing(url, adaptors=["sandbox-gender-tone"]):
        pass
    started = time.monotonic()
    assert drawn(url, seed=11, images=2) == expected
    assert time.monotonic() - started < 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adaptors": ["sandbox-gendr"]}, "Did you mean 'sandbox-gender'"),
        ({"adaptors": ["/etc"]}, "there is no adaptor '/etc' on this page"),
        ({"adaptors": [{}]}, "there is no adaptor {} on this page"),
        ({"adaptors": []}, "no adaptor is chosen"),
        ({"adaptors": "sandbox-gender"}, "adaptors are a list"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": "x" * 1001}, "1001 characters"),
        ({"strength": 1.3}, "from 0 to 1.25"),
        ({"strength": float("nan")}, "from 0 to 1.25"),
        ({"images": 65}, "whole number from 1 to 64"),
        ({"images": True}, "whole number"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": "0"}, "the seed is '0'"),
        ({"colour": "red"}, "a request is an object with prompt"),
    ],
)
def test_a_wrong_request_is_one_readable_line(url: str, changes: dict[str, Any], message: str) -> None:
    (answer,) = events(url, **changes)
    assert message in answer["error"] and "\n" not in answer["error"]


def test_a_prompt_of_strange_characters_is_drawn(url: str) -> None:
    assert drawn(url, prompt="\ud83d \x00 naïve <b>👩‍⚕️</b>", images=1)["counts"]


@pytest.mark.parametrize("body", [b"", b"nurse", b"[" * 60000, b"\xff"])
def test_what_is_no_json_is_refused(url: str, body: bytes) -> None:
    status, answer, _ = send(url, "POST", "/compare", body, Content_Type="application/json")
    assert status == 400 and "no JSON" in json.loads(answer)["error"]


def test_other_pages_cannot_send_requests(url: str) -> None:
    """A form can only send these types, and a name that was pointed at this machine has another host."""
    status, answer, _ = send(url, "POST", "/compare", b"{}", Content_Type="text/plain")
    assert status == 400 and "application/json" in json.loads(answer)["error"]
    for method, path in (("GET", "/"), ("GET", "/options"), ("POST", "/compare")):
        assert send(url, method, path, Host="evil.example", Content_Type="application/json")[0] == 403
    assert send(url, "GET", "/../setup.cfg")[0] == 404
    assert send(url, "POST", "/compare", b" " * 70000, Content_Type="application/json")[0] == 400


def test_the_page_may_load_nothing_from_elsewhere(url: str) -> None:
    status, page, headers = send(url, "GET", "/?again")
    assert status == 200 and b"http://" not in page and b"https://" not in page
    assert "default-src 'none'" in headers["Content-Security-Policy"]


class Browser:
    """Headless Chromium, spoken to by its DevTools protocol over two pipes."""

    def __init__(self, profile: Path, *, width: int, height: int):
        out, self._send = os.pipe()
        receive, into = os.pipe()
        self._receive = os.fdopen(receive, "rb")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        flags += ["--disable-background-networking", f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        # The protocol is on the descriptors 3 and 4; copies first, for they may be among these four.
        words = f'exec 3<&- 4>&-; exec 3<&"$1" 4>&"$2"; shift 2; exec {CHROMIUM} "$@" about:blank'
        high = [os.dup(descriptor) for descriptor in (out, into)]
        self._process = subprocess.Popen(
            ["bash", "-c", words, "bash", *map(str, high), *flags], pass_fds=high, stderr=subprocess.DEVNULL
        )
        for descriptor in (out, into, *high):
            os.close(descriptor)
        self.requested: list[str] = []
        self.problems: list[Any] = []
        self._number, self._session = 0, None
        target = next(one for one in self("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self("Emulation.setDeviceMetricsOverride", **size)

    def __call__(self, method: str, **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._read())
            if answer.get("method") == "Network.requestWillBeSent":
                self.requested.append(answer["params"]["request"]["url"])
            elif answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.problems.append(answer["params"])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> bytes:
        message = bytearray()
        while (byte := self._receive.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            message += byte
        return bytes(message)

    def value(self, expression: str) -> Any:
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str, *, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not self.value(expression):
            assert time.monotonic() < end, (expression, self.value("document.body.innerText"), self.problems)
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        data = self("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._send)
        self._receive.close()
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    opened: list[Browser] = []

    def open_(width: int = 1280, height: int = 900) -> Browser:
        opened.append(Browser(tmp_path / f"profile{len(opened)}", width=width, height=height))
        return opened[-1]

    yield open_
    for one in opened:
        one.__exit__()


def test_the_page_draws_in_a_browser(url: str, browser: Callable[..., Browser]) -> None:
    page = browser()
    page("Page.navigate", url=url)
    page.wait("document.getElementsByName('adaptor').length == 3")
    page.value("document.getElementById('images').value = 5; document.getElementById('go').click()")
    page.wait("document.querySelectorAll('#before img').length == 5 && !running")
    assert (
        page.value("[...document.querySelectorAll('.tiles img')].filter(image => image.naturalWidth == 64).length")
        == 10
    )
    heads = page.value("[...document.querySelectorAll('#counts h3')].map(head => head.textContent)")
    assert heads == ["Genderaimed at", "Tonenot aimed at", "Agenot aimed at"]
    counted = page.value(
        "[...document.querySelectorAll('#counts tbody')].map(body => [1, 2].map("
        "side => [...body.rows].reduce((sum, row) => sum + Number(row.cells[side].textContent), 0)))"
    )
    assert counted == [[5, 5]] * 3
    said = page.value("document.getElementById('result').innerText")
    assert "noise floor" in said and "5 images say little" in said
    elsewhere = [address for address in page.requested if not address.startswith((url, "data:image/png"))]
    assert not elsewhere and not page.problems


def test_the_page_stops_a_drawing_and_shows_an_error(url: str, browser: Callable[..., Browser]) -> None:
    page = browser()
    page("Page.navigate", url=url)
    page.wait("document.getElementsByName('adaptor').length == 3")
    page.value("document.getElementById('images').value = 64; document.getElementById('go').click()")
    page.wait("document.getElementById('said').textContent.includes(' of 128 images')")
    page.value("document.getElementById('go').click()")
    page.wait("!running && document.getElementById('status').hidden")
    assert page.value("document.getElementById('error').hidden")
    page.value("document.getElementsByName('adaptor')[0].checked = false; document.getElementById('go').click()")
    page.wait("!document.getElementById('error').hidden && !running")
    assert "no adaptor is chosen" in page.value("document.getElementById('error').innerText")


def test_the_page_fits_a_telephone(url: str, browser: Callable[..., Browser]) -> None:
    page = browser(width=390, height=844)
    page("Page.navigate", url=url)
    page.wait("document.getElementsByName('adaptor').length == 3")
    page.value("document.getElementById('images').value = 4; document.getElementById('go').click()")
    page.wait("document.querySelectorAll('#after img').length == 4 && !running")
    assert page.value("document.documentElement.scrollWidth") == 390


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A base that is not the sandbox, and an adaptor for it."""
    from .tiny import tiny_pipeline, write_tiny_adaptor

    pipe = tiny_pipeline()
    return pipe, str(write_tiny_adaptor(tmp_path_factory.mktemp("adaptors") / "tiny", pipe))


def test_without_a_classifier_there_are_only_the_pictures(other: tuple[Any, str]) -> None:
    pipe, folder = other
    studio = Studio(pipe, base="tiny", adaptors=[folder])
    told: Events = []
    result = studio.compare(studio.read({**REQUEST, "prompt": "a nurse", "adaptors": [folder]}), told.append)
    assert told == [{"done": done, "total": 8} for done in (0, 4, 8)]
    assert len(result["before"]) == 4 and result["before"] != result["after"]
    assert result["counts"] == result["bias"] == {}


def test_an_error_while_drawing_is_told_and_leaves_no_adaptor(
    other: tuple[Any, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, folder = other
    studio = Studio(pipe, base="tiny", adaptors=[folder])
    before = pipe.unet.conv_in.weight.clone()
    with AppServer(studio) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        request = {"prompt": "a nurse", "adaptors": [folder], "images": 1}
        assert "result" in events(server.url, **request)[-1]
        monkeypatch.setattr(pipe.scheduler, "step", lambda *arguments, **named: 1 / 0)
        assert "drawing failed: division by zero" in events(server.url, **request)[-1]["error"]
        monkeypatch.undo()
        server.shutdown()
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert pipe.unet.conv_in.weight.equal(before)


@pytest.mark.parametrize(
    ("base", "adaptors", "message"),
    [
        ("tiny", [], "no adaptor is published for tiny"),
        ("tiny", ["sandbox-gendr"], "Did you mean 'sandbox-gender'"),
        ("tiny", ["sandbox-gender"], "was made for sandbox"),
        ("tiny", ["gender-race"], "not published"),
    ],
)
def test_what_cannot_be_offered_is_told_at_the_start(
    other: tuple[Any, str], base: str, adaptors: list[str], message: str
) -> None:
    with pytest.raises(FairAdaptorError, match=message):
        Studio(other[0], base=base, adaptors=adaptors)


def test_a_port_that_is_taken_is_a_readable_error(other: tuple[Any, str]) -> None:
    studio = Studio(other[0], base="tiny", adaptors=[other[1]])
    with AppServer(studio) as first, pytest.raises(ConfigError, match="cannot listen on 127.0.0.1 port"):
        AppServer(studio, port=first.server_address[1])
    with pytest.raises(ConfigError, match="cannot listen on no.such.host.invalid"):
        AppServer(studio, host="no.such.host.invalid")
