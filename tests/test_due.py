"""What is due by minutes: on a clock of the test's own, and in runs."""

import dataclasses
from typing import Any

import pytest
from fair_adaptors.training.config import TrainConfig
from fair_adaptors.training.engine.processes import World
from fair_adaptors.training.engine.state import TrainingState
from fair_adaptors.training.recipes import RECIPES, get_recipe
from fair_adaptors.training.run import due as due_module
from fair_adaptors.training.run.due import Due, described, stop_bounds

from tests.tiny_training import CONFIG


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1000.0
        monkeypatch.setattr(due_module.time, "perf_counter", lambda: self.now)


def a_run(clock: Clock, config: TrainConfig, *, minutes: float, takes: dict[str, float]) -> list[tuple[str, int]]:
    """Go through a run whose iterations take some minutes; return what was due after which of them."""
    state = TrainingState({}, None, None, {})  # type: ignore[arg-type]
    due = Due(config, World(), "cpu", clock.now)
    due.begin(state)
    seen: list[tuple[str, int]] = []
    for state.iteration in range(1, config.iterations + 1):
        clock.now += 60 * minutes
        for kind in sorted(due.after(state)):
            seen.append((kind, state.iteration))
            clock.now += 60 * takes.get(kind, 0.0)
            due.done(kind, state)
            if kind == "validate":
                state.history["validation"] = 60 * takes.get(kind, 0.0)
    return seen


def test_minutes_count_from_the_last_time_and_validation_is_a_tenth_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIG, save_minutes=10.0, validate_minutes=30.0, iterations=200)
    seen = a_run(Clock(monkeypatch), config, minutes=1, takes={"validate": 8})
    assert [i for kind, i in seen if kind == "save"][:4] == [10, 20, 30, 32], "the clock goes on while it validates"
    validated = [i for kind, i in seen if kind == "validate"]
    assert validated == [30, 30 + 72, 102 + 72, 200], "nine times eight minutes; and the end"


@pytest.mark.parametrize("minutes", [0.3, 4.0, 40.0])
@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("sandbox")])
def test_recipes_for_people_save_and_validate_soon_whatever_an_iteration_takes(
    name: str, minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the iteration in which ten, and thirty, minutes are over."""
    config = dataclasses.replace(get_recipe(name), iterations=400)
    seen = a_run(Clock(monkeypatch), config, minutes=minutes, takes={})
    first = {kind: next(i for which, i in seen if which == kind) * minutes for kind in ("save", "validate")}
    assert 10 <= first["save"] + 1e-6 < 10 + minutes + 1e-6 and 30 <= first["validate"] + 1e-6 < 30 + minutes + 1e-6
    assert config.keep == "best" and config.stop_below > 0


def test_a_run_ends_at_a_share_of_the_farthest_that_it_can_be_from_its_target() -> None:
    config = dataclasses.replace(get_recipe("gender-race-age"), stop_below=0.5)
    assert stop_bounds(config) == {"gender": 0.5, "race": 0.25, "age": 0.375}
    gender, _, age = (attribute.figure for attribute in config.attributes)
    assert (gender, age) == ("gender bias", "distance of age from its target")


def test_by_iterations_nothing_depends_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIG, save_every=2, validate_every=3, sample_every=4, iterations=7)
    seen = a_run(Clock(monkeypatch), config, minutes=1e6, takes={})
    wanted = [("save", i) for i in (2, 4, 6)] + [("validate", i) for i in (3, 6, 7)] + [("sample", i) for i in (4, 7)]
    assert sorted(seen) == sorted(wanted)


def test_a_run_that_is_stopped_again_and_again_is_validated_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its minutes go on where they were; those to the next checkpoint begin anew."""
    clock, config = Clock(monkeypatch), dataclasses.replace(CONFIG, save_minutes=10.0, validate_minutes=30.0)
    history: dict[str, Any] = {}
    found = []
    for _ in range(3):
        state = TrainingState({}, None, None, {}, history=history)  # type: ignore[arg-type]
        clock.now += 1e5  # the machine did something else
        due = Due(config, World(), "cpu", clock.now)
        due.begin(state)
        clock.now += 7 * 60
        assert not due.after(state)
        clock.now += 3 * 60
        found.append(sorted(due.after(state)))
    assert found == [["save"], ["save"], ["save", "validate"]]
    assert "validate" in Due(CONFIG, World(), "cpu", clock.now).after(
        TrainingState({}, None, None, {}, history=history | {"unvalidated": True})  # type: ignore[arg-type]
    ), "one that was cut short is made anew"


def test_what_is_due_when_is_told_before_the_run() -> None:
    said = "; ".join(described(get_recipe("gender-race")))
    assert "a checkpoint every 10 minutes" in said and "a validation every 30 minutes, at least 9 times" in said
    assert "finds the bias below gender 0.4, race 0.2" in said and "that of the best validation" in said
    assert list(described(get_recipe("sandbox-gender")))[0].startswith("a checkpoint every 40 iterations")
