"""What a recipe trains on and against: the base, its prompts, classifiers, encoders and faces."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from fair_adaptors.training.engine.denoisers import denoiser_for
from fair_adaptors.training.engine.families.denoiser import decode_with
from fair_adaptors.training.engine.schedule import check_scheduler
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fair_adaptors.adaptor.bases import imported, plugin_of
from fair_adaptors.adaptor.modules import fingerprint
from fair_adaptors.attributes import factors, labels
from fair_adaptors.errors import ConfigError, first_line
from fair_adaptors.families import table
from fair_adaptors.families.table import family_of, token_encoders
from fair_adaptors.hub.client import split_revision
from fair_adaptors.pipelines import load_pipeline
from fair_adaptors.vision.catalog import load_classifier, load_encoder
from fair_adaptors.vision.checked import checked
from fair_adaptors.vision.faces import load_face_detector
from fair_adaptors.vision.joint import shared_classifier
from fair_adaptors.vision.types import FaceDetector

from .config import Attribute, TrainConfig
from .keeping import kept_attributes, unseen
from .preflight import check, check_classes
from .prompt_sets import named_classes, prompt_sets, validation_prompts
from .sharding import shard, sharded_parts, whole
from .speed import faster_by, speed_up

if TYPE_CHECKING:
    from fair_adaptors.training.faces.bank import FaceBank

Logits = Mapping[str, Tensor]


@dataclass(frozen=True)
class Setup:
    """What a recipe trains on and against.

    Attributes:
        pipe: the base.
        prompts: sets of training prompts, by name.
        named: classes of the attributes to make fair that a training prompt names, by prompt; its images are to show
            them.
        validation_prompts: prompts to validate on.
        classifier: frozen; images [N, 3, H, W] in [0, 1], and the boxes [N, 4] of their faces where classifiers are to
            see these alone, to logits [N, K] of each attribute.
        validation_classifier: another classifier, for validation and for the numbers at the end.
        encoders: frozen; images to unit features, for preservation.
        faces: finds the faces; only images with one take part. None takes the whole image for one.
        face_encoder: frozen; aligned faces to unit features; None for no face loss.
        face_bank: features of real faces by class; None where an image whose class must change has no face loss.
        trained_against: identity of the classifier, so that an evaluation can tell that it uses another one.
        kept_attributes: what must stay as the original model shows it.
        beside: classes of what the validation classifier knows beside what is made fair: validation measures how far
            each of them moves.
        warnings: what is to be said of all this, a line each.
        gradient_decoder: latents [N, C, h, w] to images [N, 3, H, W] in [0, 1], of a small autoencoder that the
            gradient goes through; None for the base's own.
    """

    pipe: Any
    prompts: Mapping[str, tuple[str, ...]]
    validation_prompts: tuple[str, ...]
    classifier: Callable[..., Logits]
    validation_classifier: Callable[..., Logits]
    encoders: Mapping[str, Callable[[Tensor], Tensor]]
    faces: FaceDetector | None = None
    face_encoder: Callable[[Tensor], Tensor] | None = None
    face_bank: "FaceBank | None" = None
    trained_against: str = ""
    kept_attributes: tuple[str, ...] = ()
    named: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    gradient_decoder: Callable[[Tensor], Tensor] | None = None

    @property
    def fingerprint(self) -> str:
        """A word that changes with the base's weights, the training prompts, the classifier and the bank of faces."""
        bank = self.face_bank
        faces = (bank.encoder, bank.source, len(bank.features), float(bank.features.double().sum())) if bank else None
        named = [sorted((prompt, sorted(classes.items())) for prompt, classes in self.named.items())]
        rest = json.dumps([sorted(self.prompts.items()), self.trained_against, faces, *(named if self.named else ())])
        return hashlib.sha256(f"{fingerprint(self.pipe.components, whole)}\n{rest}".encode()).hexdigest()[:32]


def known_attributes(base: str) -> dict[str, Attribute]:
    """Return the attributes that classifiers of a base's people know, with even targets and the factors that suit."""
    plugin = plugin_of(base)
    known = imported(plugin.attributes) if plugin else {name: tuple(classes) for name, classes in labels().items()}
    suited = dict.fromkeys(known, plugin.factors) if plugin else factors()
    return {
        name: Attribute(name, classes, (1 / len(classes),) * len(classes), *suited[name])
        for name, classes in known.items()
    }


LOADED = ("face detector", "classifiers", "encoders", "base")
"""The parts that ``load_setup`` tells of, in this order."""


def load_setup(
    config: TrainConfig, device: torch.device | str = "cpu", *, on_part: Callable[[str], None] = lambda part: None
) -> Setup:
    """Load the models and prompts of a run: what is small first, so that a fault in it costs nothing.

    Args:
        on_part: called with each of ``LOADED``, before it is loaded.

    Raises:
        ConfigError: something is named that is not there, or does not fit the attributes.
        MissingExtraError: something needs a package that is not installed.
    """
    check(config)
    on_part(LOADED[0])
    faces = load_face_detector(config.faces) if config.faces else None
    face_encoder, bank = None, None
    if config.face_weight:
        from fair_adaptors.training.faces.authors import load_bank

        from fair_adaptors.vision.face_encoders import load_face_encoder

        face_encoder = load_face_encoder(config.face_encoder)
        if config.face_bank:
            bank = load_bank(config.face_bank, face_encoder, config.attributes)
    on_part(LOADED[1])
    classifier, another = load_classifier(config.classifier), load_classifier(config.judge)
    for one in (classifier, another):
        check_classes(one.name, one.classes, config.attributes)
    kept = kept_attributes(config, classifier.classes)
    on_part(LOADED[2])
    loaded = [load_encoder(spec, whole=True) for spec in config.encoders]
    encoders = {encoder.name: encoder.encode for encoder in loaded}
    if len(encoders) < len(loaded):
        raise ConfigError(f"two encoders have the same name: {', '.join(encoder.name for encoder in loaded)}")
    aimed = [attribute.name for attribute in config.attributes]
    beside = {name: tuple(classes) for name, classes in another.classes.items() if name not in aimed}
    warnings = [shared_classifier(classifier.identity, another), *unseen(config, classifier.classes)]
    if blind := [name for name in kept if name not in beside]:
        warnings.append(f"{another.name} does not know {' or '.join(blind)}: validation cannot tell whether it stays")
    on_part(LOADED[3])
    pipe = _load_pipeline(config, device)
    warnings.append(_autoencoder_warning(config, pipe))
    return Setup(
        pipe,
        prompt_sets(config),
        validation_prompts(config),
        checked(classifier),
        checked(another),
        encoders,
        faces,
        face_encoder.encode if face_encoder is not None else None,
        bank,
        classifier.identity,
        kept,
        named_classes(config),
        beside,
        tuple(filter(None, warnings)),
        load_gradient_decoder(config, pipe, device) if config.gradient_decoder else None,
    )


def _load_pipeline(config: TrainConfig, device: torch.device | str) -> Any:
    """Load the base, frozen in the configuration's dtype, as the engine can train it."""
    wide = _trained_text_encoders(config)
    if config.dtype == "float16":
        wide |= {family.autoencoder[0] for family in table.FAMILIES}
    dtypes = {"default": getattr(torch, config.dtype), **dict.fromkeys(wide, torch.float32)}
    pipe = load_pipeline(config.base, dtype=dtypes, base_config=config.base_config or None, safety_checker=False)
    denoiser = denoiser_for(pipe)
    check_scheduler(pipe)
    if not plugin_of(config.base) and (scheduler := family_of(pipe).scheduler):
        pipe.scheduler = imported(scheduler).from_config(pipe.scheduler.config)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)  # now, not when the LoRAs come: a compiled graph would be made again
            if (dtype := part_dtype(config, pipe, name)) != part.dtype:
                part.to(dtype)
            if config.shard_base and name in sharded_parts(pipe):
                shard(part, torch.device(device))
            else:
                part.to(device)
    if config.activation_checkpointing:
        checkpoint_activations(denoiser.model, denoiser.autoencoder)
    speed_up(faster_by(config, device), denoiser)
    return pipe


def load_gradient_decoder(
    config: TrainConfig, pipe: Any, device: torch.device | str = "cpu"
) -> Callable[[Tensor], Tensor]:
    """Load the small autoencoder that a configuration names.

    Raises:
        ConfigError: it cannot be loaded, or is not for the latents of ``pipe``.
    """
    from diffusers import AutoencoderTiny

    place, revision = split_revision(config.gradient_decoder)
    try:
        small = AutoencoderTiny.from_pretrained(place, revision=revision)
    except (OSError, ValueError) as error:
        raise ConfigError(f"gradient_decoder {place} cannot be loaded: {first_line(error)}") from error
    denoiser = denoiser_for(pipe)
    theirs = small.config.latent_channels, 2 ** (len(small.config.decoder_block_out_channels) - 1)
    ours = denoiser.latent_shape[0], denoiser.scale
    if theirs != ours:
        raise ConfigError(
            f"gradient_decoder {place} reads {theirs[0]} channels and enlarges {theirs[1]} times; for this base it"
            f" must read {ours[0]} and enlarge {ours[1]} times"
        )
    small.to(device, getattr(torch, config.dtype)).requires_grad_(False).eval()
    return partial(decode_with, small)


def part_dtype(config: TrainConfig, pipe: Any, name: str) -> torch.dtype:
    """Return the dtype in which a part of the base, such as ``vae``, is trained with.

    That of the configuration, but for two kinds of parts, which are float32. A text encoder that is trained would
    round away what its LoRAs change at first: in bfloat16, of what a hundred updates do to the embeddings, two fifths
    are rounding, and 7 % if only the embeddings are rounded. And an autoencoder that overflows in float16.
    """
    dtype: torch.dtype = getattr(torch, config.dtype)
    overflows = dtype == torch.float16 and _is_wide(pipe) and name == family_of(pipe).autoencoder[0]
    return torch.float32 if overflows or name in _trained_text_encoders(config) else dtype


def _trained_text_encoders(config: TrainConfig) -> set[str]:
    """Return the text encoders that have LoRAs or read soft tokens."""
    trained = {*config.parts, *(token_encoders() if "tokens" in config.parts else ())}
    return {part for family in table.FAMILIES for part in family.text_encoders if part in trained}


def _is_wide(pipe: Any) -> bool:
    """Tell whether the autoencoder is made for float32."""
    family = family_of(pipe)
    return family.wide_autoencoder and bool(getattr(pipe, family.autoencoder[0]).config.force_upcast)


def _autoencoder_warning(config: TrainConfig, pipe: Any) -> str:
    if config.dtype == "float32" or not _is_wide(pipe):
        return ""
    what = "works in float32 here" if config.dtype == "float16" else "rounds its pictures here"
    return (
        f"the base's autoencoder is made for float32 and {what}; madebyollin/sdxl-vae-fp16-fix, which is made for half"
        " precision, need not where it stands in its place"
    )


def checkpoint_activations(network: Any, autoencoder: Any) -> None:
    """Let network and autoencoder compute activations again in the backward pass, in place of keeping them."""
    network.enable_gradient_checkpointing()
    if autoencoder._supports_gradient_checkpointing:
        autoencoder.enable_gradient_checkpointing(_layer_by_layer)
        return
    for block in autoencoder.decoder.up_blocks:
        for one in block.children():
            for layer in one if isinstance(one, torch.nn.ModuleList) else (one,):
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)


def _layer_by_layer(block: Any, *inputs: Any) -> Any:
    """Checkpoint the layers of a decoder's block, each alone: diffusers takes a block at once, and the last is large.

    Args:
        inputs: the block's: hidden states, and an embedding that an autoencoder does not have.
    """
    from diffusers.models.unets.unet_2d_blocks import UpDecoderBlock2D

    if not isinstance(block, UpDecoderBlock2D):
        return checkpoint(block, *inputs, use_reentrant=False)
    (states, *rest) = inputs
    for layer in block.resnets:
        states = checkpoint(layer, states, *rest, use_reentrant=False)
    for layer in block.upsamplers or ():
        states = checkpoint(layer, states, use_reentrant=False)
    return states
