"""The face recogniser of the paper's authors, out of their data.zip: SphereFace-R of opensphere, an IResNet."""

from fair_adaptors.adaptor.modules import fingerprint
from fair_adaptors.adaptor.record import some
from fair_adaptors.devices import accelerator
from fair_adaptors.errors import ConfigError, InvalidAdaptorError
from fair_adaptors.hub.parts import KIND, Part, find_part, unpacked
from fair_adaptors.state_dicts import read_state_dicts

from .face_encoders import FaceEncoder, with_mirrored

RECOGNISER = "opensphere"
AUTHORS_ENCODERS = {
    RECOGNISER: Part(
        "4-opensphere_checkpoints/opensphere_checkpoints/20220424_210641/models/backbone_100000.pth",
        "their face recogniser",
    )
}
"""By the name behind ``authors:``."""
_WRAPPED = "module."  # by nn.DataParallel, inside which they train


def authors_face_encoder(name: str) -> FaceEncoder:
    """Load the authors' face recogniser; their archive is fetched if it is not in the cache.

    As in their ``get_face_feats`` it sees the aligned face in RGB, in [-1, 1], and its mirror image.

    Args:
        name: of ``AUTHORS_ENCODERS``.

    Raises:
        ConfigError: there is none of that name, or its file holds another network.
        ArchiveError: the archive cannot be had.
    """
    from .iresnet import shaped_as

    path = unpacked(find_part(AUTHORS_ENCODERS, name, of="face encoder"))
    try:
        tensors = {key.removeprefix(_WRAPPED): value for key, value in read_state_dicts(path)[0][0].tensors.items()}
    except InvalidAdaptorError as error:
        raise ConfigError(str(error)) from error
    network = shaped_as(tensors)
    every = network.state_dict(), tensors
    wanted, found = ({key: tuple(value.shape) for key, value in one.items()} for one in every)
    if wrong := {key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)}:
        raise ConfigError(f"{path} is not an IResNet with opensphere's names: {some(wrong)} do not fit")
    network.load_state_dict(tensors, assign=True)
    network.float().eval().requires_grad_(False).to(accelerator())
    encode = with_mirrored(lambda faces: network(faces.to(accelerator()) * 2 - 1))
    return FaceEncoder(f"{KIND}:{name}", f"{fingerprint({'model': network})} × 2 - 1, mirrored too", encode)
