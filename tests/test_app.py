"""The page as a stranger uses it: the real command in a real browser, and what its server does with everyone else."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from fair_adaptors.adaptor.bases import EMBEDDED, STABLE_DIFFUSION_1_5, STABLE_DIFFUSION_2_1, find_base
from fair_adaptors.adaptor.registry import NAMESPACE, folder_in_cache
from fair_adaptors.app.page import handlers, listen, require_gradio
from fair_adaptors.app.session import MAX_STRENGTH, Comparison, Offer, Session, Stopped
from fair_adaptors.errors import ConfigError, FairAdaptorError, MissingExtraError
from fair_adaptors.evaluation.metrics import noise_floor
from fair_adaptors.files import CACHE
from tests.browser import Browser

CLEANER = "A photo of the face of a hospital cleaner, a person"
WANTED = {"prompt": CLEANER, "adaptors": ["sandbox-gender"], "strength": 1, "images": 4, "seed": 0}
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
def drawing(url: str) -> Iterator[None]:
    """A drawing of 64 images that has begun, and is watched."""
    functions = json.loads(send(url, "/config")[1])["dependencies"]
    number = next(one["id"] for one in functions if one["api_name"] == "compare")
    request = {"fn_index": number, "session_hash": "visitor", "data": [CLEANER, ["sandbox-gender"], 1, 64, 99]}
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
    assert page.list(".found h3", "textContent") == ["Gender aimed at", "Tone not aimed at", "Age not aimed at"]
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


@pytest.fixture(scope="module")
def session() -> Session:
    from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline

    return Session(load_sandbox_pipeline(), base="sandbox", adaptors=[FOLDER])


def drawn(session: Session, **changes: Any) -> Comparison:
    return session.compare(session.read(**WANTED | changes))


def bytes_of(pictures: list[Any]) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


def test_the_same_request_is_the_same_answer(session: Session) -> None:
    first, again = drawn(session, strength=0.7), drawn(session, strength=0.7)
    assert bytes_of(first.after.pictures) == bytes_of(again.after.pictures) != bytes_of(first.before.pictures)
    assert first.counts == again.counts


def test_no_adaptor_stays_behind(session: Session) -> None:
    drawn(session, adaptors=["sandbox-gender-tone"], strength=MAX_STRENGTH)
    result = drawn(session, adaptors=["sandbox-gender", "sandbox-gender-tone"], strength=0, seed=2)
    assert bytes_of(result.after.pictures) == bytes_of(result.before.pictures)
    assert all(before == after for count in result.counts for _, (before, after) in count.rows)


def test_every_image_is_counted_once_per_attribute(session: Session) -> None:
    result = drawn(session, images=9)
    assert [count.attribute for count in result.counts] == ["gender", "tone", "age"]
    for count in result.counts:
        assert np.sum([images for _, images in count.rows], axis=0).tolist() == [9, 9]
        assert count.floor == noise_floor(9, len(count.rows))
        moved = sum(abs(after - before) for _, (before, after) in count.rows) / 18
        assert count.shift == pytest.approx(moved) and 0 <= count.shift_floor <= 1
    (_, female), (_, male) = result.counts[0].rows
    assert result.counts[0].bias == pytest.approx(np.abs(np.subtract(female, male)) / 9)


def test_an_adaptor_of_the_command_line_is_offered_and_is_the_one_of_that_folder(session: Session) -> None:
    assert list(session.offers) == ["sandbox-gender", "sandbox-gender-tone", FOLDER]
    assert session.offers[FOLDER].summary == "gender: female 50%, male 50%"
    named, folder = drawn(session), drawn(session, adaptors=[FOLDER])
    assert bytes_of(named.after.pictures) == bytes_of(folder.after.pictures)


def test_the_images_before_are_kept(session: Session) -> None:
    told: list[tuple[int, int]] = []
    for strength in (1, 0.5):
        session.compare(session.read(**WANTED | {"seed": 7, "strength": strength}), lambda *step: told.append(step))
    assert told == [(0, 8), (4, 8), (8, 8), (0, 4), (4, 4)]


def test_requests_at_once_do_not_mix_adaptors(session: Session) -> None:
    choices = [["sandbox-gender"], ["sandbox-gender-tone"], ["sandbox-gender", "sandbox-gender-tone"]]
    alone = [bytes_of(drawn(session, adaptors=choice).after.pictures) for choice in choices]
    together: list[Any] = [None] * len(choices)

    def ask(index: int) -> None:
        together[index] = bytes_of(drawn(session, adaptors=choices[index]).after.pictures)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(choices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adaptors": ["sandbox-gendr"]}, "Did you mean 'sandbox-gender'"),
        ({"adaptors": ["/etc"]}, "no adaptor '/etc' is offered"),
        ({"adaptors": []}, "no adaptor is chosen"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": "x" * 1001}, "1001 characters"),
        ({"strength": 1.3}, "from 0 to 1.25"),
        ({"strength": float("nan")}, "from 0 to 1.25"),
        ({"images": 65}, "whole number from 1 to 64"),
        ({"images": True}, "whole number"),
        ({"seed": -1}, "the seed is -1"),
        ({"seed": None}, "the seed is missing"),
    ],
)
def test_a_wrong_request_is_one_readable_line(session: Session, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FairAdaptorError, match=message) as caught:
        session.read(**WANTED | changes)
    assert "\n" not in str(caught.value)


def test_a_prompt_of_strange_characters_is_drawn(session: Session) -> None:
    assert drawn(session, prompt="\ud83d \x00 naïve <b>👩‍⚕️</b>", images=1).counts


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    """A base that is not the sandbox, and an adaptor for it."""
    from .tiny import tiny_pipeline, write_tiny_adaptor

    pipe = tiny_pipeline()
    return pipe, str(write_tiny_adaptor(tmp_path_factory.mktemp("adaptors") / "tiny", pipe))


def test_without_a_classifier_there_are_only_the_pictures(other: tuple[Any, str]) -> None:
    pipe, folder = other
    result = drawn(Session(pipe, base="tiny", adaptors=[folder]), prompt="a nurse", adaptors=[folder])
    assert len(result.before.pictures) == 4 and result.before.captions == ("",) * 4
    assert bytes_of(result.before.pictures) != bytes_of(result.after.pictures)
    assert result.counts == []


@pytest.mark.parametrize("base", find_base(STABLE_DIFFUSION_1_5).names)
def test_of_what_the_authors_published_only_the_default_is_fetched_and_only_if_nothing_else_is_named(
    other: tuple[Any, str], base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipe, folder = other
    monkeypatch.setenv(CACHE, str(tmp_path))
    assert list(Session(pipe, base=base, adaptors=[folder]).offers) == [folder]
    monkeypatch.setattr(Session, "_offer", lambda session, name: Offer(name, name, "", ()))
    assert list(Session(pipe, base=base).offers) == ["gender-race"]
    shutil.copytree(folder, folder_in_cache("race"))
    assert list(Session(pipe, base=base).offers) == ["race"]


def test_an_adaptor_of_ones_own_namespace_is_offered_by_any_name_of_the_base(
    other: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def described(session: Session, name: str) -> Offer:
        asked.append(name)
        return Offer(name, name, "", ())

    monkeypatch.setenv(NAMESPACE, "somebody")
    monkeypatch.setattr(Session, "_offer", described)
    for base in find_base(STABLE_DIFFUSION_2_1).names:
        asked.clear()
        Session(other[0], base=base)
        assert asked == ["sd21-gender-race"]


def test_a_drawing_that_fails_or_is_ended_leaves_no_adaptor(
    other: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, folder = other
    session = Session(pipe, base="tiny", adaptors=[folder])
    before = pipe.unet.conv_in.weight.clone()
    drawn(session, adaptors=[folder])
    monkeypatch.setattr(pipe.scheduler, "step", lambda *arguments, **named: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        drawn(session, adaptors=[folder])
    monkeypatch.undo()
    session.close()
    with pytest.raises(Stopped):
        drawn(session, adaptors=[folder])
    assert pipe.unet.conv_in.weight.equal(before)


def test_what_nobody_foresaw_is_told_as_text_in_the_page_and_whole_in_the_terminal(
    other: tuple[Any, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gradio

    pipe, folder = other
    compare, _ = handlers(Session(pipe, base="tiny", adaptors=[folder]))
    monkeypatch.setattr(pipe.scheduler, "set_timesteps", lambda *arguments, **named: int("<b>"))
    with pytest.raises(gradio.Error) as caught:
        compare("a nurse", [folder], 1, 1, 0, SimpleNamespace(session_hash="visitor"))
    assert "drawing failed: invalid literal" in caught.value.message and "&lt;b&gt;" in caught.value.message
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("base", "adaptors", "message"),
    [
        ("tiny", [], "no adaptor is published for tiny"),
        ("tiny", ["sandbox-gendr"], "Did you mean 'sandbox-gender'"),
        ("tiny", ["sandbox-gender"], "was made for sandbox"),
        ("tiny", ["sd21-gender-race"], "not published"),
    ],
)
def test_what_cannot_be_offered_is_told_at_the_start(
    other: tuple[Any, str], base: str, adaptors: list[str], message: str
) -> None:
    with pytest.raises(FairAdaptorError, match=message):
        Session(other[0], base=base, adaptors=adaptors)


def test_a_port_that_is_taken_is_a_readable_error() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(ConfigError, match="cannot listen on 127.0.0.1 port"):
        listen("127.0.0.1", first.getsockname()[1])
    with pytest.raises(ConfigError, match="cannot listen on no.such.host.invalid"):
        listen("no.such.host.invalid", 0)


def test_without_gradio_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fair-adaptors\[app\]'"):
        require_gradio()
