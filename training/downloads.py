"""What a run will fetch from the Hub: each repository with its commit, size and licence, before it is fetched."""

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fair_adaptors.errors import HubError, UnknownAdaptorError
from fair_adaptors.hub.client import ask, check_repo_id, connect, split_revision
from fair_adaptors.vision.catalog import split_specs
from fair_adaptors.vision.face_encoders import PUBLISHED
from fair_adaptors.vision.faces import YUNET_BYTES, YUNET_COMMIT, YUNET_LICENCE, YUNET_REPO

from .config import TrainConfig

OF_THE_HUB = ("pipeline", "clip", "transformers", "dinov2")
"""Kinds of models whose source is a folder or a repository of the Hub."""
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|pytorch_model|model)(-\d{5}-of-\d{5})?\.(safetensors|bin)")
_SIDECARS = (
    "chat_template.jinja", "generation_config.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json",
)  # fmt: skip
_NEVER = (".msgpack", ".onnx", ".pb")
_FORMATS = (".safetensors", ".bin", ".onnx", ".pb")


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
    for setting, kind, source in hub_sources(config):
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


def hub_sources(config: TrainConfig) -> Iterator[tuple[str, str, str]]:
    """Yield (setting, kind of model, source) for every Hub id, perhaps with a commit."""
    specs = [] if config.base == "sandbox" else [("base", f"pipeline:{config.base}")]
    specs += [("classifier", spec) for spec in split_specs(config.classifier)]
    specs += [("judge", spec) for spec in split_specs(config.judge)]
    specs += [("encoders", spec) for spec in config.encoders]
    for setting, spec in specs:
        kind, _, source = spec.partition(":")
        if kind in OF_THE_HUB and not is_folder(source):
            yield setting, kind, source


def is_folder(source: str) -> bool:
    """Tell whether a model's source is a folder, there or not, and not a repository of the Hub.

    Libraries take a folder of a repository's name for it, whatever its commit.
    """
    return source[:1] in ("", ".", "/", "~") or Path(split_revision(source)[0]).exists()


def main_file(kind: str, source: str, endpoint: str | None = None) -> dict[str, Any]:
    """Fetch a repository's own description, of a few hundred bytes, or take it from the cache.

    Args:
        kind: of ``OF_THE_HUB``: a pipeline's description is its ``model_index.json``.
        source: Hub id, perhaps with a commit.
        endpoint: another server than the Hub's.

    Raises:
        UnknownAdaptorError: there is no such repository, revision or file, or the Hub may not be asked.
        HubError: the Hub refuses, or does not answer.
    """
    name = "model_index.json" if kind == "pipeline" else "config.json"
    api, (repo_id, revision) = connect(endpoint, None), split_revision(source)
    check_repo_id(repo_id)
    path = ask(api, repo_id, lambda: api.hf_hub_download(repo_id, name, revision=revision), patience=2.0)
    try:
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise HubError(f"{repo_id}: {name} is damaged: {error}") from error


def _ask_for(what: str, kind: str, source: str, endpoint: str | None) -> Download:
    api, (repo_id, pinned) = connect(endpoint, None), split_revision(source)
    try:
        info = ask(api, repo_id, lambda: api.model_info(repo_id, revision=pinned), patience=2.0)
        commit = str(info.sha)
        tree = ask(
            api, repo_id, lambda: list(api.list_repo_tree(repo_id, revision=commit, recursive=True)), patience=2.0
        )
        index = main_file(kind, f"{repo_id}@{commit}", endpoint) if kind == "pipeline" else {}
    except (HubError, UnknownAdaptorError) as error:
        return Download(what, repo_id, pinned, problem=str(error))
    sizes = {entry.path: size for entry in tree if (size := getattr(entry, "size", None)) is not None}
    card = info.card_data.get("license") if info.card_data else None
    licence = card or next((tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")), None)
    fetched = pipeline_files(list(sizes), index) if kind == "pipeline" else model_files(list(sizes))
    return Download(what, repo_id, commit, sum(map(sizes.__getitem__, fetched)) / 1e6, str(licence or "not stated"))


def pipeline_files(paths: Sequence[str], index: Mapping[str, Any]) -> list[str]:
    """Return the files that diffusers' ``DiffusionPipeline.from_pretrained`` fetches.

    It takes weights of the usual names from every folder, one that is no component too, such as ``vae_1_0`` of
    Stable Diffusion XL.

    Args:
        paths: all files of the repository.
        index: its ``model_index.json``.
    """
    components = {name for name, value in index.items() if isinstance(value, list) and name != "_class_name"}
    with_weights = {folder for path in paths if path.endswith(_FORMATS) and (folder := _folder(path)) in components}
    usual = [path for path in paths if _WEIGHTS.fullmatch(path.rpartition("/")[2])]
    safe = {_folder(path) for path in usual if path.endswith(".safetensors")}
    unwanted = (*_NEVER, ".bin" if with_weights <= safe else ".safetensors")  # one format for all components
    wanted = {"model_index.json", "config.json", "scheduler_config.json", "pipeline.py", *_SIDECARS, *usual}
    wanted |= {f"{name}/config.json" for name in with_weights} | set(filter(_is_index, paths))
    others = components - with_weights  # such as tokenizers, which are fetched whole
    kept = [path for path in paths if path in wanted or path.partition("/")[0] in others]
    return [path for path in kept if not path.removesuffix(".json").removesuffix(".index").endswith(unwanted)]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _is_index(path: str) -> bool:
    """Tell whether a file says which shards of the weights hold which tensors."""
    name = path.rpartition("/")[2]
    return bool(_WEIGHTS.fullmatch(name.removesuffix(".index.json"))) and name.endswith(".index.json")


def model_files(paths: Sequence[str]) -> list[str]:
    """Return the files that transformers fetches for a model: its weights in one format, safetensors if there."""
    here = [path for path in paths if "/" not in path]
    kinds = ("model.safetensors", "model-*.safetensors", "pytorch_model.bin", "pytorch_model-*.bin")
    weights = next((found for kind in kinds if (found := fnmatch.filter(here, kind))), [])
    return [path for path in here if path.endswith((".json", ".txt"))] + weights
