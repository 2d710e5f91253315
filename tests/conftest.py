"""What every test may rely on: no network, one thread, the same seed, and nothing skipped where CI runs."""

import io
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before torch and huggingface_hub are imported: they read these once. The processes that tests start inherit them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

pytest_plugins = (
    "tests.authors_data",
    "tests.browser",
    "tests.hub.fixtures",
    "tests.commands",
    "tests.reports",
    "tests.making",
)

BEGIN_FIRST = (
    "test_documented_commands", "test_signals", "test_run", "test_full_path", "test_sandbox", "test_distributed",
    "test_evaluate",
)  # fmt: skip
"""The files that take longest, so that in the end no process is left alone with one of them."""
NO_SKIPS = "FAIR_ADAPTORS_NO_SKIPS"
"""Environment variable: with 1, as in .ci/run, a test that would be skipped fails."""
NO_NPM = "npm did not fetch MobileFaceNet"
MAY_BE_SKIPPED = {NO_NPM: "a machine that tests Python packages need not have npm, nor a way to its registry"}
"""Reasons for which a test may be skipped everywhere, and why."""


IGNORED = (
    "ignore:Use 'content=<:DeprecationWarning",  # how huggingface_hub hands what it uploads to httpx
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning",  # what peft asks models for
)
"""Warnings of libraries that tests of several files cannot help."""


def pytest_configure(config: pytest.Config) -> None:
    """Let warnings be errors but for those that nobody here can help."""
    for warning in IGNORED:
        config.addinivalue_line("filterwarnings", warning)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files begin first."""
    items.sort(key=lambda item: BEGIN_FIRST.index(item.path.stem) if item.path.stem in BEGIN_FIRST else 99)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skipped test fail where nothing may be skipped."""
    return fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Let a skipped file fail where nothing may be skipped."""
    return fail_if_skipped((yield))


def fail_if_skipped(report: Any) -> Any:
    skipped = report.outcome == "skipped" and not hasattr(report, "wasxfail")  # of what is expected to fail
    reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
    if skipped and os.environ.get(NO_SKIPS) == "1" and reason not in MAY_BE_SKIPPED:
        report.outcome = "failed"
        report.longrepr = f"{NO_SKIPS}=1, and this test was skipped: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what tests fetch and convert out of the user's cache, and the user's cache out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIR_ADAPTORS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Seeds torch's global generator, for the model initialisations that take no generator."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal in the place of stderr, for what shows that something is waited for."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("fair_adaptors.progress.sys", SimpleNamespace(stderr=screen))  # pytest puts back sys.stderr
    return screen


@pytest.fixture
def pipe() -> Any:
    """A tiny Stable Diffusion pipeline."""
    from tests.tiny import tiny_pipeline

    return tiny_pipeline()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny Stable Diffusion pipeline."""
    from tests.tiny import tiny_pipeline

    folder = tmp_path_factory.mktemp("base")
    tiny_pipeline().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def adaptor(tmp_path: Path, pipe: Any) -> Path:
    """The folder of an adaptor for it."""
    from tests.tiny import write_tiny_adaptor

    return write_tiny_adaptor(tmp_path / "adaptor", pipe)


@pytest.fixture
def datasets_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what the datasets library writes out of the user's cache, and spares its rest of 5 s after a stream."""
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    monkeypatch.setattr(config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


@pytest.fixture
def other(tmp_path: Path, pipe: Any) -> Path:
    """The folder of another adaptor for it."""
    from tests.tiny import write_tiny_adaptor

    return write_tiny_adaptor(tmp_path / "other", pipe, seed=2)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small CLIP."""
    from tests.vision_models import small_clip

    return small_clip(tmp_path_factory.mktemp("clip"))
