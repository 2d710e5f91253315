"""What a training run is made of: one frozen dataclass, no defaults hidden elsewhere.

Every setting says what part of a run it belongs to, what it is for, and which values it may have; ``docs/settings.md``
is made of that.
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Literal

from fair_adaptors.adaptor.record import is_text
from fair_adaptors.errors import ConfigError
from fair_adaptors.families.table import all_parts
from fair_adaptors.vision.pretrained import TRAINING_ENCODERS

from .bounds import check, described, setting

Share = tuple[str, float]


@dataclass(frozen=True)
class Attribute:
    """An attribute to make fair: its classes in index order, the target shares, and what may change with its class."""

    name: str
    classes: tuple[str, ...]
    target: tuple[float, ...]
    factor1: float = 0.2
    factor2: float = 0.2

    @property
    def figure(self) -> str:
        """What tells how far it is from its target: the bias, or the distance from a target of unequal shares."""
        return f"{self.name} bias" if len(set(self.target)) == 1 else f"distance of {self.name} from its target"


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    name: str = field(metadata=described("output"))
    """Name of the adaptor."""
    base: str = field(metadata=described("model"))
    """Base model: ``sandbox``, a pipeline folder, a Hub id (ORG/NAME@COMMIT is one version of it), or one
    ``.safetensors`` file with the whole model, together with ``base_config``."""
    attributes: tuple[Attribute, ...] = field(metadata=described("data"))
    """What to make fair, jointly."""
    base_config: str = setting("model", "")
    """For a base that is one file: the folder or Hub id of a pipeline alike, whose configurations and tokenizer, but
    not its weights, are used."""
    classifier: str = setting("losses", "clip:openai/clip-vit-large-patch14")
    """Tells the classes while training: ``clip:SOURCE``, ``transformers:SOURCE``, ``mobilenet:FILE``,
    ``onnx:SETTINGS:FILE``, ``authors:NAME``, ``sandbox:NAME`` or ``MODULE:OBJECT``; several are joined by +, and
    of what several know their mean counts."""
    judge: str = setting("validation", "clip:laion/CLIP-ViT-L-14-laion2B-s32B-b82K")
    """The validation classifier: another one, for validation and for the numbers at the end."""
    encoders: tuple[str, ...] = setting("losses", TRAINING_ENCODERS)
    """Tell how much of the original image is kept: ``clip:SOURCE``, ``dinov2:SOURCE``, ``onnx:SETTINGS:FILE``,
    ``sandbox:portraits`` or ``MODULE:OBJECT``."""
    faces: str = setting("losses", "yunet")
    """Detector of faces: ``yunet``, ``yunet:PATH``, ``insightface`` or ``MODULE:OBJECT``; empty where the whole
    image is the face."""
    face_encoder: str = setting("losses", "")
    """Tells whose face it is: ``auraface``, another published one, ``authors:opensphere``, ``onnx:FILE`` or
    ``MODULE:OBJECT``; empty for no face loss."""
    face_bank: str = setting("losses", "")
    """Real faces, for those whose class must change: a file, ``authors:celeba`` or ``authors:fairface``; empty to let
    these go without a face loss."""
    parts: tuple[str, ...] = setting("model", ("text_encoder",))
    """What is trained: ``text_encoder``, ``text_encoder_2``, ``unet`` or ``transformer`` (each with LoRAs) and
    ``tokens`` (soft tokens before the prompt)."""
    rank: int = setting("model", 50, least=1)
    """Rank of the LoRAs."""
    alpha: int = setting("model", 0, least=0)
    """The scale of the LoRAs is alpha / rank; 0 means alpha = rank."""
    dropout: float = setting("model", 0.0, least=0, below=1)
    """Dropout of the LoRAs' inputs, in the gradient pass only. With it the number of processes changes the
    result."""
    target_modules: tuple[str, ...] = setting("model", ())
    """Names of the linear layers that get a LoRA; none for those of the paper."""
    num_tokens: int = setting("model", 5, least=1)
    """How many soft tokens there are, if they are trained."""
    prompt_sets: tuple[Share, ...] = setting("data", (("occupations-train", 1.0),))
    """Prompt sets, the authors' too (``authors:occupations``), or files of prompts (.txt, .json, .yaml), with their
    shares, such as ``train:2,more.txt:1``. Images of a prompt that names a class of an attribute to make fair are to
    show that class."""
    validation_set: str = setting("validation", "occupations-validation")
    """The prompts to validate on: a prompt set, or a file of prompts (.txt, .json, .yaml)."""
    iterations: int = setting("optimisation", 10_000, least=1)
    """How often images are made and the weights moved by them."""
    updates_per_rollout: int = setting("optimisation", 1, least=1)
    """Optimiser steps by the images of one iteration, each of other ``gradient_steps``."""
    prompts_per_step: int = setting("data", 1, least=1)
    """Prompts whose gradients make one optimiser step."""
    images_per_prompt: int = setting("data", 24, least=2)
    """Images of one prompt (N); split over the processes."""
    named_images: int = setting("data", 0, least=0)
    """Images of one prompt in prompt sets that name a class in every prompt: several prompts then share a batch of
    ``images_per_prompt`` images, so that more of them are seen. 0 for as many images as of any other prompt."""
    num_steps: int = setting("sampling", 20, least=1)
    """Sampling steps (T)."""
    max_steps: int = setting("sampling", 0, least=0)
    """If more than ``num_steps``, T is drawn anew for each prompt from ``num_steps`` to this."""
    gradient_steps: int = setting("sampling", 0, least=0)
    """How many of the T steps take part in the gradient (K), spread over the run, other ones for each image; 0 for
    all."""
    images_per_call: int = setting("sampling", 0, least=0)
    """Rows of one U-Net call of the gradient pass. Fewer need less memory; 0 for a step at a time."""
    images_per_decode: int = setting("sampling", 0, least=0)
    """Images that are decoded and classified at once with gradient; 0 for all."""
    gradient_decoder: str = setting("sampling", "")
    """A small autoencoder that the gradient goes through, from pixels that the base's own decoded to the latents: a
    folder or Hub id of diffusers' ``AutoencoderTiny``, such as ``madebyollin/taesd``; empty for the base's own."""
    step_weights: Literal["uniform", "noise", "velocity", "image", "published", "exact"] = setting(
        "sampling", "uniform"
    )
    """Weights of the steps in the gradient: the same for each step's ``noise`` (the paper's A := 1), ``velocity`` or
    ``image``; ``uniform`` for the one of them that suits the base, noise, or velocity where the model predicts a flow;
    those of the ``published`` code; or ``exact``."""
    guidance_scale: float = setting("sampling", 7.5, least=0)
    """Scale of guidance, as the base's pipeline takes it. Up to 1 most have none; Z-Image has none at 0."""
    unguided: int = setting("sampling", 0, least=0)
    """Iterations at the start that do without guidance: half the cost, and gentler where guidance drives a bias to
    its extreme."""
    unconditional_gradient: bool = setting("sampling", True)
    """Whether the gradient goes through the unconditional branch of guidance too; without, the gradient pass has half
    the rows, and nothing tells that branch where to go."""
    originals_pool: int = setting("data", 0, least=0)
    """If more than 0, each prompt has this many sets of noises, which come again in turn; the original model's
    images of them are kept on disk in the run's folder."""
    optimizer: Literal["adamw", "adamw8bit"] = setting("optimisation", "adamw")
    """``adamw``, or ``adamw8bit`` of bitsandbytes."""
    learning_rate: float = setting("optimisation", 5e-5, above=0)
    """AdamW's learning rate, reached after ``warmup`` iterations."""
    schedule: Literal["constant", "cosine", "linear"] = setting("optimisation", "constant")
    """What the learning rate does then: it stays ``constant``, or falls to zero, as half a ``cosine`` or
    ``linear``ly."""
    warmup: int = setting("optimisation", 5, least=0)
    """Iterations until the learning rate is reached."""
    weight_decay: float = setting("optimisation", 1e-2, least=0)
    """AdamW's weight decay."""
    max_grad_norm: float = setting("optimisation", 1.0, above=0)
    """The gradient is clipped to this norm; ``inf`` for no clipping."""
    ema: float = setting("optimisation", 0.996, least=0, below=1)
    """Decay of the average of the weights, warmed up; the average is what is kept in the end."""
    dtype: Literal["float32", "bfloat16", "float16"] = setting("model", "float32")
    """Number format of the base. The adaptor, its gradients and the losses are float32 in any case."""
    tf32: bool = setting("model", False)
    """Let NVIDIA cards multiply float32 matrices in TF32."""
    channels_last: bool = setting("model", False)
    """Order weights as the convolutions of NVIDIA cards have them in half precision."""
    activation_checkpointing: bool = setting("model", False)
    """Recompute the blocks of U-Net and autoencoder in the backward pass: less memory, more time."""
    shard_base: bool = setting("model", False)
    """Split the frozen weights of U-Net and text encoders over the processes: for a base that does not fit one card.
    Needs several processes with equal shares of the images; slower."""
    compile: bool = setting("model", False)
    """Compile the U-Net with torch.compile on NVIDIA cards; the first call takes minutes."""
    threshold: float = setting("losses", 0.8, least=0, most=1)
    """Least confidence of a target (C)."""
    num_draws: int = setting("losses", 1000, least=1)
    """Draws for targets without a closed form: those of several attributes, or of more than two classes."""
    preservation: float = setting("losses", 8.0, least=0)
    """Weight of the preservation loss, λ₁."""
    preserve_unassigned: Literal["full", "reduced"] = setting("losses", "full")
    """How far images without a confident target are preserved: with the ``full`` weight, or with the ``reduced`` one
    of images whose class must change, as in the published code."""
    keep_attributes: tuple[str, ...] = setting("losses", ("others",))
    """Attributes that must stay as the original model shows them: ``others`` for all that the training classifier
    knows beside those to make fair; empty for none."""
    keep_by: Literal["image", "prompt"] = setting("losses", "prompt")
    """What stays of them: the class of every ``image`` from the same noise, or only how many images of a ``prompt``
    show each class."""
    keep_weight: float = setting("losses", 1.0, least=0)
    """Weight of the loss that keeps them."""
    keep_confidence: float = setting("losses", 0.8, least=0, most=1)
    """How sure the classifier must be of the original image's class for that class to be kept."""
    face_weight: float = setting("losses", 0.0, least=0)
    """Weight of the face loss."""
    face_confidence: float = setting("losses", 0.9, least=0)
    """How sure the classifier must be of the original's class for its face to be kept."""
    max_skipped: int = setting("optimisation", 10, least=0)
    """The run stops when more iterations than this in a row had a gradient that was not finite."""
    sample_every: int = setting("output", 0, least=0)
    """Iterations between pictures of the progress; 0 for none by iterations."""
    sample_minutes: float = setting("output", 0.0, least=0)
    """Minutes between pictures of the progress; 0 for none by minutes."""
    save_every: int = setting("output", 0, least=0)
    """Iterations between checkpoints; 0 for none by iterations. A run that is stopped or ends is saved in any case."""
    save_minutes: float = setting("output", 0.0, least=0)
    """Minutes between checkpoints; 0 for none by minutes."""
    checkpoints_total_limit: int = setting("output", 3, least=0)
    """How many checkpoints are kept, beside the best; 0 for all."""
    validate_every: int = setting("validation", 0, least=0)
    """Iterations between measurements on the validation prompts; 0 for none by iterations."""
    validate_minutes: float = setting("validation", 0.0, least=0)
    """Minutes between measurements on the validation prompts, and at least nine times as many as the last one took;
    0 for none by minutes. What is best and when the run ends then depends on the machine; how the weights move does
    not."""
    validation_images: int = setting("validation", 32, least=1)
    """Images per validation prompt."""
    least_kept: float = setting("validation", 0.3, least=-1)
    """The run has collapsed when on the validation prompts the mean cosine of its images to the original model's,
    over all encoders, is below this in two validations in a row. It then ends with the best adaptor so far."""
    most_faceless: float = setting("validation", 0.1, least=0)
    """The run has also collapsed when the share of images without a face has risen by more than this in two
    validations in a row."""
    stop_below: float = setting("validation", 0.0, least=0)
    """The run ends when on the validation prompts the upper end of the averaged weights' bias interval is below
    this share of the largest bias there can be (1 for two classes, 0.5 for four), for every attribute; 0 for
    never."""
    strength: float = setting("output", 1.0, above=0)
    """What is written of the LoRAs is their change times this, and validation measures that. Above 1 it goes further
    the way that training went."""
    keep: Literal["last", "best"] = setting("output", "last")
    """Which weights become the adaptor: the ``last``, or those of the ``best`` validation, which has the least bias
    plus shift of what must stay, each as a mean over attributes."""
    trackers: tuple[str, ...] = setting("output", ("tensorboard",))
    """Where the curves go: ``tensorboard``, ``wandb``."""
    seed: int = setting("data", 0, least=0, most=2**32)
    """Seed of everything random."""

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            check(one, getattr(self, one.name))
        if self.gradient_steps > self.num_steps:
            raise ConfigError(f"gradient_steps ({self.gradient_steps}) is more than num_steps ({self.num_steps})")
        if self.named_images and self.images_per_prompt % self.named_images:
            raise ConfigError(
                f"named_images ({self.named_images}) must divide images_per_prompt ({self.images_per_prompt})"
            )
        if not is_text(self.name):
            raise ConfigError(f"name is {self.name!r}; it must be a line of text")
        if len(set(self.parts)) < len(self.parts):
            raise ConfigError(f"parts names a part twice: {', '.join(self.parts)}")
        if self.face_weight and not (self.face_encoder and self.faces):
            raise ConfigError("face_weight needs a face_encoder, and faces to find them with")
        if not self.attributes:
            raise ConfigError("there is nothing to make fair; give at least one target")
        if len({attribute.name for attribute in self.attributes}) < len(self.attributes):
            raise ConfigError("an attribute is given twice")
        if both := {attribute.name for attribute in self.attributes} & set(self.keep_attributes):
            raise ConfigError(f"keep_attributes has {', '.join(sorted(both))}, which is to be made fair, not kept")
        trainable = (*all_parts(), "tokens")
        if not self.parts or set(self.parts) - set(trainable):
            raise ConfigError(f"parts is {', '.join(self.parts) or 'empty'}; choose from {', '.join(trainable)}")
        if unknown := set(self.trackers) - {"tensorboard", "wandb"}:
            raise ConfigError(f"trackers has {', '.join(sorted(unknown))}; choose from tensorboard and wandb")
        if not self.prompt_sets or not all(0 < share < math.inf for _, share in self.prompt_sets):
            raise ConfigError("prompt_sets needs at least one set, with shares above 0, such as train:1")
        if not (self.validate_every or self.validate_minutes) and (self.stop_below or self.keep == "best"):
            raise ConfigError(
                "stop_below and keep=best need validate_every or validate_minutes: nothing would be measured"
            )

    @property
    def shapes(self) -> str:
        """Where the base's configurations are: a base that is one file has none."""
        return self.base_config or self.base

    @property
    def digest(self) -> str:
        """Hash of all settings that a resumed run must share with the run it goes on with."""
        settings = {key: value for key, value in dataclasses.asdict(self).items() if key not in MAY_DIFFER}
        if self.schedule == "constant":  # then a run can be made longer
            del settings["iterations"]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


MAY_DIFFER = (
    "sample_every", "sample_minutes", "save_every", "save_minutes", "checkpoints_total_limit",
    "validate_every", "validate_minutes", "validation_images", "stop_below", "least_kept", "most_faceless",
    "keep", "strength", "trackers", "max_skipped", "judge", "validation_set", "shard_base",
)  # fmt: skip
"""Settings that do not change how the weights move."""
