"""What the page asks of the models: the same noise before and after, counted, and nothing stays behind."""

import math
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fair_adaptors.adaptor.bases import EMBEDDED, STABLE_DIFFUSION_1_5, STABLE_DIFFUSION_2_1, find_base
from fair_adaptors.adaptor.registry import NAMESPACE, folder_in_cache
from fair_adaptors.app.handlers import handlers, render
from fair_adaptors.app.limits import ALONE, Allowance
from fair_adaptors.app.session import MAX_STRENGTH, Comparison, Offer, Session, Stopped
from fair_adaptors.errors import FairAdaptorError
from fair_adaptors.evaluation.metrics import effective_floor, noise_floor
from fair_adaptors.files import CACHE

FOLDER = str(EMBEDDED / "sandbox-gender")
CLEANER = "A photo of the face of a hospital cleaner, a person"
VISITOR = SimpleNamespace(session_hash="visitor", client=SimpleNamespace(host="127.0.0.1"))
WANTED = {"prompt": CLEANER, "adaptors": ["sandbox-gender"], "strength": 1, "images": 4, "seed": 0}


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
        assert count.floor == (noise_floor(9, len(count.rows)),) * 2
        assert count.fair == effective_floor(9, (1 / len(count.rows),) * len(count.rows))
        assert all(1 <= shown <= len(count.rows) for shown in count.shown)
        moved = sum(abs(after - before) for _, (before, after) in count.rows) / 18
        assert count.shift == pytest.approx(moved) and 0 <= count.shift_floor <= 1
    (_, female), (_, male) = result.counts[0].rows
    assert result.counts[0].bias == pytest.approx(np.abs(np.subtract(female, male)) / 9)


def test_what_should_stay_is_told_beside_the_classes(session: Session) -> None:
    result = drawn(session, images=4)
    assert [row.what for row in result.beside] == ["right occupation", "distance of two images", "likeness to before"]
    kept, distance, likeness = result.beside
    assert kept.share and 0.5 <= min(kept.figures) and not kept.is_lost
    assert 0 < min(distance.figures) and math.isnan(likeness.figures[0]) and 0.5 < likeness.figures[1] < 1
    unknown = drawn(session, images=2, prompt="a clown in the rain")
    assert [row.what for row in unknown.beside] == ["distance of two images", "likeness to before"]


def test_the_first_example_is_drawn_once_for_all_who_open_the_page(session: Session) -> None:
    told: list[tuple[int, int]] = []

    def leave(done: int, total: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        session.open(leave)
    request, first = session.open(lambda *step: told.append(step))
    assert told[0] == (0, 32) and told[-1] == (32, 32) and len(first.after.pictures) == request.images == 16
    assert request.prompt == next(iter(session.examples.values())) and request.adaptors == ("sandbox-gender",)
    assert session.open(leave)[1] is first
    shown = render(session, request, first)
    assert "right occupation" in shown and "shift from before" in shown and "classes shown, of 2" in shown
    assert "better" not in shown and "green" not in shown


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
    assert (result.counts, result.beside, result.warnings) == ([], [], [])


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
    compare = handlers(Session(pipe, base="tiny", adaptors=[folder]), Allowance(ALONE)).compare
    monkeypatch.setattr(pipe.scheduler, "set_timesteps", lambda *arguments, **named: int("<b>"))
    with pytest.raises(gradio.Error) as caught:
        compare("a nurse", [folder], 1, 1, 0, VISITOR)
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
