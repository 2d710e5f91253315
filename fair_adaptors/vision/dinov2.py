"""DINOv2, through transformers: an encoder of images."""

from .pretrained import identity, loaded, name, preparation, unit
from .types import Encoder


def dino_encoder(source: str, *, whole: bool = False) -> Encoder:
    """Return DINOv2's class-token features (Oquab et al. 2023).

    Args:
        source: folder or Hub id.
        whole: see the whole of each image, as in training; else what the model's processor leaves of it.

    Raises:
        ConfigError: it cannot be loaded.
    """
    from transformers import AutoModel

    model = loaded(AutoModel, source)
    prepare, how = preparation(source, model.device, whole=whole)
    return Encoder(
        name("dinov2", source),
        identity(model, how),
        lambda images: unit(model(pixel_values=prepare(images)).last_hidden_state[:, 0]),
    )
