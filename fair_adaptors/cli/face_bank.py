"""The command that makes a bank of real faces."""

from pathlib import Path
from typing import Annotated

import typer

from fair_adaptors.errors import ConfigError, missing_extra
from fair_adaptors.files import check_writable_file
from fair_adaptors.progress import bar, waiting

from .common import Device, quiet


def face_bank(
    dataset: Annotated[
        str, typer.Option(help="fairface, celeba, a folder, ORG/NAME on the Hub, or the authors' face_feats.pkl.")
    ],
    out: Annotated[Path, typer.Option(help="New safetensors file.")],
    attributes: Annotated[str, typer.Option(help="Labels to keep; a .pkl has its own.")] = "gender,race",
    encoder: Annotated[
        str, typer.Option(help="auraface, sface, authors:opensphere, onnx:FILE or MODULE:OBJECT.")
    ] = "auraface",
    faces: Annotated[str, typer.Option(help="yunet, yunet:PATH, insightface, whole or MODULE:OBJECT.")] = "yunet",
    limit: Annotated[int | None, typer.Option(min=1, help="Use at most this many pictures, drawn at random.")] = None,
    device: Device = None,
) -> None:
    """Encode real faces. In training, a face that has to change is pulled towards the nearest of them."""
    import os

    if out.exists():
        raise ConfigError(f"{out} exists; choose another --out")
    check_writable_file(out, ".safetensors")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        quiet()
        with waiting("loading what finds faces"):
            from fair_adaptors.training.classifier.data import Labelled, describe_source, find_source, pinned
            from fair_adaptors.training.faces.authors import convert_published_bank
            from fair_adaptors.training.faces.bank import save_face_bank
            from fair_adaptors.training.faces.build import build_face_bank
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "classifier") from error
    from fair_adaptors.devices import choose_device
    from fair_adaptors.vision.face_encoders import load_face_encoder
    from fair_adaptors.vision.faces import load_face_detector

    choose_device(device)
    left_out: dict[str, int] = {}
    if dataset.endswith(".pkl"):
        bank = convert_published_bank(Path(dataset).expanduser(), load_face_encoder(encoder))
    else:
        with waiting("looking at the data set"):
            source = pinned(find_source(dataset))
            described = "\n".join(describe_source(source))
        print(described, flush=True)
        data = Labelled(source, tuple(name.strip() for name in attributes.split(",")), limit=limit)
        with bar("finding faces", transient=True) as (_, advance):
            bank, left_out = build_face_bank(
                data,
                load_face_encoder(encoder),
                load_face_detector(faces),
                on_pictures=lambda seen, found: advance(seen, data.num_train),
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_face_bank(bank, out)
    for classes, count in bank.counts().items():
        print(f"{' '.join(classes)}: {count} faces")
    for reason, count in left_out.items():
        print(f"left out with {reason}: {count}")
    print(f"{len(bank.features)} faces in {out}. To train with it: --set face_encoder={encoder} --set face_bank={out}")
