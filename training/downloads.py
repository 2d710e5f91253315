"""What a run will fetch from the Hub: each repository with its commit, size and licence, before it is fetched."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fair_adaptors.errors import HubError, UnknownAdaptorError
from fair_adaptors.evaluation.face_encoders import PUBLISHED
from fair_adaptors.evaluation.faces import YUNET_BYTES, YUNET_COMMIT, YUNET_LICENCE, YUNET_REPO
from fair_adaptors.evaluation.instruments import split_specs
from fair_adaptors.hub_requests import ask, connect

from .config import TrainConfig

_OF_THE_HUB = ("pipeline", "clip", "transformers", "dinov2")
_VARIANT = re.compile(r"\.(fp16|bf16|non_ema|ema)[.-]")
_TAKEN = re.compile(r"(model|pytorch_model|diffusion_pytorch_model)\b")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".onnx_data", ".pb")


@dataclass(frozen=True)
class Download:
    """Something from the Hub that a run needs.

    Attributes:
        what: which settings name it.
        repo_id: where it is.
        commit: which one; None if the Hub did not answer.
        megabytes: of the files that will be fetched.
        licence: as its card says.
        problem: why nothing is known of it.
    """

    what: str
    repo_id: str
    commit: str | None = None
    megabytes: float = 0.0
    licence: str = "not stated"
    problem: str = ""

    def __str__(self) -> str:
        if self.problem:
            return f"{self.what}: {self.problem}"
        return f"{self.repo_id} ({self.what}): {self.megabytes:,.1f} MB, commit {self.commit}, licence {self.licence}"


def downloads(config: TrainConfig, *, endpoint: str | None = None) -> list[Download]:
    """Ask the Hub about every repository that a configuration names. Only metadata are fetched.

    Folders, and what ships with this package, are no downloads.

    Args:
        endpoint: another server than the Hub's, or than ``HF_ENDPOINT``.
    """
    named: dict[tuple[str, str], list[str]] = {}
    for setting, kind, source in _named(config):
        named.setdefault((kind, source), []).append(setting)
    found = [_ask_for(", ".join(settings), kind, source, endpoint) for (kind, source), settings in named.items()]
    return found + _of_faces(config)


def _of_faces(config: TrainConfig) -> list[Download]:
    """Return the files that this package pins itself, of which all is known without asking."""
    found = []
    if config.faces == "yunet":
        found.append(Download("faces", YUNET_REPO, YUNET_COMMIT, YUNET_BYTES / 1e6, YUNET_LICENCE))
    if config.face_weight and (one := PUBLISHED.get(config.face_encoder)):
        found.append(Download("face_encoder", one.repo, one.commit, one.megabytes, one.licence))
    return found


def _named(config: TrainConfig) -> Iterator[tuple[str, str, str]]:
    """Yield (setting, kind of model, source) for every Hub id, perhaps with a commit."""
    specs = [("base", f"pipeline:{config.base}")]
    specs += [("classifier", spec) for spec in split_specs(config.classifier)]
    specs += [("judge", spec) for spec in split_specs(config.judge)]
    specs += [("encoders", spec) for spec in config.encoders]
    for setting, spec in specs:
        kind, _, source = spec.partition(":")
        is_folder = source[:1] in ("", ".", "/", "~") or Path(source.partition("@")[0]).exists()
        if kind in _OF_THE_HUB and source.count("/") == 1 and not is_folder:
            yield setting, kind, source


def _ask_for(what: str, kind: str, source: str, endpoint: str | None) -> Download:
    api = connect(endpoint, None)
    repo_id, _, pinned = source.partition("@")
    try:
        info = ask(api, repo_id, lambda: api.model_info(repo_id, revision=pinned or None), patience=2.0)
        commit = str(info.sha)
        tree = ask(
            api, repo_id, lambda: list(api.list_repo_tree(repo_id, revision=commit, recursive=True)), patience=2.0
        )
    except (HubError, UnknownAdaptorError) as error:
        return Download(what, repo_id, pinned or None, problem=str(error))
    sizes = {entry.path: size for entry in tree if (size := getattr(entry, "size", None)) is not None}
    card = info.card_data.get("license") if info.card_data else None
    licence = card or next((tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")), None)
    fetched = sum(sizes[path] for path in _fetched(sizes, whole_pipeline=kind == "pipeline"))
    return Download(what, repo_id, commit, fetched / 1e6, str(licence or "not stated"))


def _fetched(paths: "dict[str, int]", *, whole_pipeline: bool) -> list[str]:
    """Return the files that diffusers (``whole_pipeline``) or transformers takes: safetensors where there are any."""
    folders: dict[str, list[str]] = {}
    for path in paths:
        if path.endswith(_WEIGHTS):
            folders.setdefault(path.rpartition("/")[0], []).append(path)
    chosen = [path for path in paths if path.endswith((".json", ".txt"))]
    for folder, weights in folders.items():
        if bool(folder) == whole_pipeline:
            plain = [path for path in weights if not _VARIANT.search(path) and _TAKEN.match(path.rpartition("/")[2])]
            safe = [path for path in plain if path.endswith(".safetensors")]
            chosen += safe or [path for path in plain if path.endswith(".bin")]
    return chosen
