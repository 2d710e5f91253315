"""What a run will fetch from the Hub: each repository with its commit, size and licence, before it is fetched."""

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fair_adaptors.adaptor.archives import DATA
from fair_adaptors.adaptor.bases import plugin_of
from fair_adaptors.errors import HubError, UnknownAdaptorError
from fair_adaptors.hub.client import check_repo_id, connect, fetch_file, look_up, size_of, split_revision
from fair_adaptors.hub.parts import KIND, is_here
from fair_adaptors.vision.catalog import CLASSIFIERS, ENCODERS, is_folder, parse, split_specs
from fair_adaptors.vision.face_encoders import PUBLISHED

from .config import TrainConfig

_PIPELINES = ("pipeline", "configuration")
"""Kinds of models that are a pipeline."""


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
    found += _of_authors(config)
    if config.face_weight and (one := PUBLISHED.get(config.face_encoder)):  # pinned here: there is nothing to ask
        found.append(Download("face_encoder", one.repo, one.commit, one.megabytes, one.licence))
    return found


def _of_authors(config: TrainConfig) -> list[Download]:
    """Return the authors' archive, if a part of it is named and it is not in the cache. Its size is not published."""
    named = {"classifier": config.classifier, "judge": config.judge, "prompt_sets": str(config.prompt_sets)}
    named |= {"validation_set": config.validation_set}
    named |= {"face_encoder": config.face_encoder, "face_bank": config.face_bank} if config.face_weight else {}
    settings = [name for name, value in named.items() if f"{KIND}:" in value]
    where = f"{DATA.name} of the paper's authors, from {DATA.page}; its size and sha256 are shown when it is there"
    return [Download(", ".join(settings), DATA.name, problem=where)] if settings and not is_here() else []


def hub_sources(config: TrainConfig) -> Iterator[tuple[str, str, str]]:
    """Yield (setting, kind of model, source) for every Hub id, perhaps with a commit.

    The base is a ``pipeline``. Of a ``configuration``, a pipeline too, the weights are left there.
    """
    if config.base_config and not is_folder(config.base_config):
        yield "base_config", "configuration", config.base_config
    if not plugin_of(config.base) and not is_folder(config.base):
        yield "base", "pipeline", config.base
    if config.gradient_decoder and not is_folder(config.gradient_decoder):
        yield "gradient_decoder", "autoencoder", config.gradient_decoder
    named = [("classifier", spec, CLASSIFIERS) for spec in split_specs(config.classifier)]
    named += [("judge", spec, CLASSIFIERS) for spec in split_specs(config.judge)]
    named += [("encoders", spec, ENCODERS) for spec in config.encoders]
    for setting, spec, kinds in named:
        word = parse(spec)
        if word.is_of_hub(kinds) and not is_folder(word.source):
            yield setting, word.kind, word.source


def main_file(kind: str, source: str, endpoint: str | None = None) -> dict[str, Any]:
    """Fetch a repository's own description, of a few hundred bytes, or take it from the cache.

    Args:
        kind: of the model: the description of a pipeline and a configuration is ``model_index.json``.
        source: Hub id, perhaps with a commit.
        endpoint: another server than the Hub's.

    Raises:
        UnknownAdaptorError: there is no such repository, revision or file, or the Hub may not be asked.
        HubError: the Hub refuses, or does not answer.
    """
    name = "model_index.json" if kind in _PIPELINES else "config.json"
    repo_id, revision = split_revision(source)
    check_repo_id(repo_id)
    path = fetch_file(repo_id, name, revision, endpoint=endpoint, patience=2.0)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise HubError(f"{repo_id}: {name} is damaged: {error}") from error


def _ask_for(what: str, kind: str, source: str, endpoint: str | None) -> Download:
    api, (repo_id, pinned) = connect(endpoint, None), split_revision(source)
    try:
        info = look_up(api, repo_id, pinned, patience=2.0)
        commit, files = str(info.sha), {file.rfilename: file for file in info.siblings or ()}
        index = main_file(kind, f"{repo_id}@{commit}", endpoint) if kind in _PIPELINES else {}
        fetched = pipeline_files(list(files), index) if kind in _PIPELINES else model_files(list(files))
        if kind == "configuration":
            fetched = [name for name in fetched if name.endswith((".json", ".txt"))]
        size = sum(size_of(api, repo_id, commit, files[name]) for name in fetched)
    except (HubError, UnknownAdaptorError) as error:
        return Download(what, repo_id, pinned, problem=str(error))
    card = info.card_data.get("license") if info.card_data else None
    licence = card or next((tag.partition(":")[2] for tag in info.tags or () if tag.startswith("license:")), None)
    return Download(what, repo_id, commit, size / 1e6, str(licence or "not stated"))


def pipeline_files(paths: Sequence[str], index: Mapping[str, Any]) -> list[str]:
    """Return the files that diffusers' ``from_pretrained`` fetches. It has no dry run: its public functions choose.

    The safety checker is left out, as training does. Weights of the usual names are taken from every folder, one that
    is not a component too, such as ``vae_1_0`` of Stable Diffusion XL.

    Args:
        paths: all files of the repository.
        index: its ``model_index.json``.
    """
    from diffusers.pipelines import pipeline_loading_utils as of_diffusers
    from diffusers.utils.constants import TRANSFORMERS_COMPONENT_AUX_FILES
    from huggingface_hub.utils import filter_repo_objects

    components = {name for name, value in index.items() if isinstance(value, list)} - {"_class_name", "safety_checker"}
    with_weights = {path.rpartition("/")[0] for path in of_diffusers.filter_model_files(paths)} & components
    safe = of_diffusers.is_safetensors_compatible(paths, folder_names=with_weights)
    unwanted = ["*.bin" if safe else "*.safetensors", "*.msgpack", "*.onnx", "*.pb"]
    usual, _ = of_diffusers.variant_compatible_siblings(paths, ignore_patterns=unwanted)
    wanted = [path for path in usual if not path.startswith("safety_checker/")] + TRANSFORMERS_COMPONENT_AUX_FILES
    wanted += ["model_index.json", "config.json", "scheduler_config.json", "pipeline.py"]
    wanted += [f"{name}/config.json" if name in with_weights else f"{name}/*" for name in components]
    unwanted += [f"{pattern}.index.*json" for pattern in unwanted]
    return list(filter_repo_objects(paths, allow_patterns=wanted, ignore_patterns=unwanted))


def model_files(paths: Sequence[str]) -> list[str]:
    """Return the files that transformers or diffusers fetches for a model: its weights in one format, the safe one."""
    here = [path for path in paths if "/" not in path]
    kinds = (
        "model.safetensors",
        "model-*.safetensors",
        "pytorch_model.bin",
        "pytorch_model-*.bin",
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.bin",
    )
    weights = next((found for kind in kinds if (found := fnmatch.filter(here, kind))), [])
    return [path for path in here if path.endswith((".json", ".txt"))] + weights
