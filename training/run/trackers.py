"""Where the curves of a run go: TensorBoard, Weights & Biases, through accelerate. One that fails is left out."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fair_adaptors.training.config import TrainConfig


class Trackers:
    """The trackers of a run. Whatever one of them raises, it is said once, and training goes on without it."""

    def __init__(self, config: TrainConfig, folder: Path, *, warn: Callable[[str], None]):
        self._warn = warn
        self._live: dict[str, Any] = {}
        settings = {key: str(value) for key, value in vars(config).items()}
        for name in config.trackers:
            self._try(name, partial(self._start, name, folder, settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send numbers of an iteration."""
        for name, tracker in list(self._live.items()):
            self._try(name, partial(tracker.log, dict(values), step=step))

    def close(self) -> None:
        """End the run for every tracker."""
        for name, tracker in list(self._live.items()):
            self._try(name, tracker.finish)

    def _start(self, name: str, folder: Path, settings: dict[str, str]) -> None:
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        if name == "tensorboard":
            tracker = TensorBoardTracker("logs", logging_dir=str(folder))
        else:
            tracker = WandBTracker(settings["name"], dir=str(folder))
        tracker.start()
        tracker.store_init_configuration(settings)
        self._live[name] = tracker

    def _try(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 (whatever a tracker does, the run is worth more)
            self._live.pop(name, None)
            self._warn(f"the tracker {name} failed and is left out: {type(error).__name__}: {error}")
