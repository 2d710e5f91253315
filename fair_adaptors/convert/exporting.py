"""Writes an adaptor as other programs read it: kohya's names, diffusers, peft, an embedding, or a merged pipeline."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fair_adaptors.adaptor.architecture import kind_of
from fair_adaptors.adaptor.bases import by_short_name, find_base
from fair_adaptors.adaptor.folder import AdaptorFiles, read_adaptor
from fair_adaptors.adaptor.record import WEIGHTS_FILE, some
from fair_adaptors.errors import ConfigError, FairAdaptorError, WrongBaseError, did_you_mean
from fair_adaptors.families.family import Family
from fair_adaptors.families.table import family_of
from fair_adaptors.files import FILE_ENDINGS, check_writable, written_aside
from fair_adaptors.state_dicts import PEFT_CONFIG

from .layouts import kohya_keys, peft_keys
from .stacked import join, original_layers

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDING = "textual-inversion"
FORMATS = ("kohya", "diffusers", "peft", "merged", EMBEDDING)
ONE_FILE = ("kohya", EMBEDDING)
PEFT_WEIGHTS = "adapter_model.safetensors"


def export(folder: str | Path, out: str | Path, *, format: str, pipe: Any = None) -> Path:
    """Write an adaptor in another format. The change of every layer is the same, to the bit; strength 1 is as trained.

    Args:
        folder: of the adaptor.
        out: a new folder; for kohya and textual-inversion the name of a new ``.safetensors`` file is also fine.
        format:
            ``kohya``: one file for ComfyUI and A1111;
            ``diffusers``: ``pytorch_lora_weights.safetensors`` for ``pipe.load_lora_weights`` (of SDXL's second text
                encoder transformers 5.6.0 drops the layers there, 5.12 does not);
            ``peft``: a folder for each part, for ``PeftModel.from_pretrained`` (transformers ≥ 5.6);
            ``merged``: the whole pipeline with the adaptor, at its default strength, in its weights;
            ``textual-inversion``: soft tokens as one word for ``pipe.load_textual_inversion``, ComfyUI and A1111. In
            diffusers the word is the file's name in angle brackets, and stands at the beginning of the prompt.
        pipe: the base; needed for ``merged``, and left as it was, without this adaptor.

    Returns:
        The file or folder that was written.

    Raises:
        FairAdaptorError: the format has no place for the adaptor's soft tokens, or for its LoRAs; or the pipeline has
            another LoRA, or weights that nothing can be merged into.
        ConfigError: no such format, no base to merge into, or ``out`` exists or is no name for what is written.
        InvalidAdaptorError, WrongBaseError: as in ``load_fair_adaptor``.
    """
    folder, out = Path(folder), Path(out).expanduser()
    if format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}.{did_you_mean(format, FORMATS)} Known: {', '.join(FORMATS)}")
    files = read_adaptor(folder)
    _check_place(files, format)
    name, data = kohya_file(files) if format == "kohya" else (f"{_file_name(files.record.name)}.safetensors", b"")
    if format == "merged":
        _check_mergeable(pipe)
    if format not in ONE_FILE:
        check_writable(out)
    elif out.suffix.lower() in FILE_ENDINGS - {".safetensors"}:
        raise ConfigError(f"`out` must end in .safetensors, or be the name of a folder (got {out})")
    elif out.suffix.lower() != ".safetensors":
        out = out / name
    with written_aside(out) as aside:
        if format == "kohya":
            aside.write_bytes(data)
        elif format == "diffusers":
            aside.mkdir()
            shutil.copyfile(folder / WEIGHTS_FILE, aside / WEIGHTS_FILE)
        elif format == "peft":
            _write_peft(files, aside)
        elif format == EMBEDDING:
            _write_embedding(files, aside, out.stem)
        else:
            _write_merged(folder, aside, pipe)
    return out


def kohya_tensors(tensors: "Mapping[str, Tensor]", family: Family) -> "dict[str, Tensor]":
    """Return the tensors under kohya's names, with alpha = rank.

    Where ranks differ, alphas are left out, which means the same: diffusers (0.42) takes only one alpha for all.

    Args:
        tensors: under our names.
        family: of the base. Where its original code keeps several of our layers as one, they are joined, exactly.

    Raises:
        FairAdaptorError: a layer has no place under those names.
    """
    import torch

    renamed: dict[str, Tensor] = {}
    pairs = {stem: (tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"]) for stem in _stems(tensors)}
    layers = _under_original_names(pairs, family)
    one_rank = len({len(down) for down, _ in layers.values()}) == 1
    for stem, (down, up) in layers.items():
        values = {"lora_A": down, "lora_B": up, "alpha": torch.tensor(float(len(down)))}
        renamed |= {name: values[role] for name, role in kohya_keys(stem, family)[: 2 + one_rank]}
    return renamed


def _under_original_names(
    layers: "dict[str, tuple[Tensor, Tensor]]", family: Family
) -> "dict[str, tuple[Tensor, Tensor]]":
    start, part = f"{family.network}.", family.parts[family.network]
    if not part.original:
        return layers
    found = {stem: pair for stem, pair in layers.items() if not stem.startswith(start)}
    network = {stem.removeprefix(start): pair for stem, pair in layers.items() if stem.startswith(start)}
    originals = original_layers(part, network)
    if without := network.keys() - {name for members in originals.values() for name in members}:
        raise FairAdaptorError(
            f"the format kohya has no names for {some(without)} of {family.title}; export to diffusers or peft"
        )
    for layer, members in originals.items():
        found[start + layer] = join({name: network[name] for name in members if name in network}, members, part)
    return found


def kohya_file(files: AdaptorFiles) -> tuple[str, bytes]:
    """Return the name and the bytes of an adaptor's file for ComfyUI and A1111; the same adaptor has the same bytes.

    Raises:
        WrongBaseError: it is for a base of no known family.
    """
    from safetensors.torch import save

    rank = str(files.record.rank)
    base = find_base(files.record.base_model) or by_short_name(kind_of(files.record.base_signature) or "")
    known = {"ss_network_module": "networks.lora", "ss_network_dim": rank, "ss_network_alpha": rank}
    data = save(kohya_tensors(files.tensors, _family(files)))
    if base and base.kohya_metadata:  # A1111 takes a file with others, and without these, for Stable Diffusion 1
        data = _with_metadata(data, {**known, **base.kohya_metadata})
    return f"{_file_name(files.record.name)}_kohya.safetensors", data


def _with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Put metadata into a safetensors file; the library itself writes them in another order each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(data[8:end])}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]


def _write_peft(files: AdaptorFiles, folder: Path) -> None:
    from safetensors.torch import save_file

    family = _family(files)
    for part in (part for part in family.parts if part in files.record.trained_parts):
        (folder / part).mkdir(parents=True)
        stems = [stem for stem in _stems(files.tensors) if stem.startswith(f"{part}.")]
        pairs = {key: f"{stem}.{role}.weight" for stem in stems for key, role in peft_keys(stem, family)[:2]}
        tensors = {key: files.tensors[ours] for key, ours in pairs.items()}
        downs = {key.rpartition(".lora_A.")[0]: len(down) for key, down in tensors.items() if ".lora_A." in key}
        ranks = {key.removeprefix("base_model.model."): rank for key, rank in downs.items()}
        most = max(ranks.values())
        smaller = {module: rank for module, rank in ranks.items() if rank < most}
        settings = {
            "peft_type": "LORA",
            "base_model_name_or_path": files.record.base_model,
            "r": most,
            "lora_alpha": most,
            "rank_pattern": smaller,
            "alpha_pattern": smaller,
            "target_modules": sorted(ranks),
            "bias": "none",
            "inference_mode": True,
        }
        save_file(tensors, folder / part / PEFT_WEIGHTS, {"format": "pt"})
        (folder / part / PEFT_CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _check_place(files: AdaptorFiles, format: str) -> None:
    lacks = ("LoRAs" if files.tensors else "") if format == EMBEDDING else ("soft tokens" if files.tokens else "")
    if lacks:
        other = "no format holds both" if files.tensors and files.tokens else "kohya, diffusers, peft and merged do"
        other = other if files.tensors else f"{EMBEDDING} does"
        raise FairAdaptorError(f"{files.record.name!r} has {lacks}, which the format {format} cannot hold; {other}")


def _write_embedding(files: AdaptorFiles, path: Path, word: str) -> None:
    from safetensors.torch import save_file

    save_file({f"<{word}>": next(iter(files.tokens.values()))}, path)


def _check_mergeable(pipe: Any) -> None:
    if pipe is None:
        raise ConfigError("merged writes a copy of the base with the adaptor in it: give the base as `pipe`")
    for part in family_of(pipe).parts:
        module = getattr(pipe, part, None)
        if module is not None and any(".lora_" in name for name, _ in module.named_parameters()):
            raise FairAdaptorError(
                f"the {part} has a LoRA of peft on it, which cannot be saved merged: unload it first"
            )


def _write_merged(folder: Path, out: Path, pipe: Any) -> None:
    from fair_adaptors.load import load_fair_adaptor

    with load_fair_adaptor(pipe, folder) as handle:
        if handle.injected:
            raise FairAdaptorError(
                f"{handle.info.name!r} cannot be merged into weights that are quantised, cast, sharded or not in"
                " memory: load the base in float32, bfloat16 or float16"
            )
        pipe.save_pretrained(out)


def _family(files: AdaptorFiles) -> Family:
    family = files.record.family_of_base
    if family is None:
        raise WrongBaseError(f"{files.record.name!r} is for a base that is not of a known family of pipelines")
    return family


def _stems(tensors: "Mapping[str, Tensor]") -> list[str]:
    end = ".lora_A.weight"
    return [key.removesuffix(end) for key in sorted(tensors) if key.endswith(end)]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:80].strip(".-") or "adaptor"
