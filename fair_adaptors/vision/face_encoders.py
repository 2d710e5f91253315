"""Encoders of faces: what tells whose face it is, with gradients to the pixels."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fair_adaptors.adaptor.bases import imported
from fair_adaptors.devices import accelerator
from fair_adaptors.errors import ConfigError, FairAdaptorError, did_you_mean
from fair_adaptors.hub.parts import KIND

from .catalog import load_own, parse
from .onnx_file import Graph, read_onnx
from .onnx_network import onnx_network

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 112
"""Pixels along a side of an aligned face."""


@dataclass(frozen=True)
class FaceEncoder:
    """Tells how alike two faces are.

    Attributes:
        name: what tables call it.
        identity: a word that changes with its weights, and with all else that its features depend on.
        encode: aligned faces [N, 3, 112, 112] in [0, 1] → unit features [N, D]; gradients pass to the pixels.
    """

    name: str
    identity: str
    encode: "Callable[[Tensor], Tensor]"


@dataclass(frozen=True)
class Published:
    """An encoder on the Hub.

    Attributes:
        repo, commit, file, sha256: what is downloaded.
        megabytes: its size.
        licence: of the weights, as the Hub spells it.
        bytes_in: whether the network takes levels 0…255 of a byte; else it takes [−1, 1].
    """

    repo: str
    commit: str
    file: str
    sha256: str
    megabytes: int
    licence: str
    bytes_in: bool

    @property
    def address(self) -> str:
        """Where the file is."""
        return f"https://huggingface.co/{self.repo}/resolve/{self.commit}/{self.file}"


PUBLISHED = {
    # ArcFace's ResNet-100; its card says that the data it was trained on may be used commercially, too. The detectors
    # and the other networks beside it are insightface's and for non-commercial use: they are not downloaded.
    "auraface": Published(
        "fal/AuraFace-v1",
        "af6d057c9b0ec4071d4c49c80e3539258798b609",
        "glintr100.onnx",
        "a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60",
        261,
        "apache-2.0",
        bytes_in=False,
    ),
    # A MobileFaceNet (Zhong et al. 2021), for machines without a GPU. OpenCV feeds it bytes: ``face_recognize.cpp``.
    "sface": Published(
        "opencv/face_recognition_sface",
        "3d7082438a6e4551e840c9b2bb60b71e8da4b524",
        "face_recognition_sface_2021dec.onnx",
        "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        39,
        "apache-2.0",
        bytes_in=True,
    ),
}
"""Encoders whose weights may be used freely. The default is the first one: the network is of the kind that the paper
used, and both its licence and its data allow any use."""


AUTHORS = "fair_adaptors.vision.authors_faces:authors_face_encoder"
"""What loads the face encoder of the paper's authors, as ``module:function``."""


def load_face_encoder(spec: str = "auraface") -> FaceEncoder:
    """Load an encoder of faces, frozen.

    Args:
        spec: ``auraface`` or ``sface``, with weights from the Hub; ``authors:opensphere`` of the paper's authors;
            ``onnx:FILE`` of an encoder of insightface's kind; or ``MODULE:OBJECT`` that is a ``FaceEncoder``.

    Raises:
        ConfigError: no such encoder, or its weights are not to be had or not what they should be.
    """
    word = parse(spec)
    if spec in PUBLISHED:
        return _published(spec)
    if word.kind == "onnx" and word.source:
        path = Path(word.source).expanduser()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{spec}: {path} cannot be read: {error.strerror}") from error
        return _encoder(f"onnx:{path.name}", data, bytes_in=None)
    if word.kind == KIND:
        return imported(AUTHORS)(word.source)
    if ":" not in spec:
        known = (*PUBLISHED, "authors:opensphere", "onnx:FILE", "MODULE:OBJECT")
        raise ConfigError(f"no face encoder {spec!r}.{did_you_mean(spec, known)} Known: {', '.join(known)}")
    return load_own(spec, FaceEncoder)


def with_mirrored(features: "Callable[[Tensor], Tensor]") -> "Callable[[Tensor], Tensor]":
    """Return what encodes a face by its features and those of its mirror image, summed, to unit length (paper §2)."""
    from torch.nn.functional import normalize

    return lambda faces: normalize((features(faces) + features(faces.flip(-1))).float(), dim=1)


def _published(name: str) -> FaceEncoder:
    from fair_adaptors.hub.client import fetch_file

    one = PUBLISHED[name]
    what = f"the face encoder {name}, {one.file} of {one.repo} ({one.megabytes} MB)"
    try:
        path = fetch_file(one.repo, one.file, one.commit, what=what)
    except FairAdaptorError as error:
        raise ConfigError(f"{error}. Or fetch {one.address} and name it: onnx:FILE") from error
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != one.sha256:
        raise ConfigError(f"{path} is damaged: its sha256 is not {one.sha256[:12]}…; delete it and try again")
    return _encoder(name, data, bytes_in=one.bytes_in)


def _encoder(name: str, data: bytes, *, bytes_in: bool | None) -> FaceEncoder:
    """Make an encoder of an ONNX file; ``bytes_in`` is None where the file has to tell."""
    import torch

    graph, device = read_onnx(data, name), accelerator()
    network = onnx_network(graph, name, device)
    scale, shift = (255.0, 0.0) if (_normalises(graph) if bytes_in is None else bytes_in) else (2.0, -1.0)
    encode = with_mirrored(lambda faces: network(faces * scale + shift))
    try:
        with torch.no_grad():
            shape = encode(torch.zeros(1, 3, SIDE, SIDE)).shape
    except (
        KeyError,
        TypeError,
        RuntimeError,
        ValueError,
    ) as error:  # what torch and our operations say of what does not fit
        raise ConfigError(f"{name} cannot encode a face of {SIDE} × {SIDE} pixels: {error}") from error
    if len(shape) != 2:
        raise ConfigError(f"{name} gives features of shape {list(shape)} for a face; they must be [1, D]")
    identity = hashlib.sha256(data).hexdigest()
    return FaceEncoder(name, f"{identity} × {scale:g} + {shift:g}, mirrored too", encode)


def _normalises(graph: Graph) -> bool:
    """Tell whether a network itself brings bytes to the range it wants, as insightface's ``ArcFaceONNX`` finds out."""
    return {"Sub", "Mul"} <= {node.operation for node in graph.nodes[:8]}
