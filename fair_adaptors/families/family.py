"""What is to be said of a pipeline family; a new one is a file that says it, and a row in ``table``."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Part:
    """A part of a pipeline that a LoRA can be on.

    Attributes:
        model: its class, as ``module:object``.
        target_modules: the linear layers that get a LoRA if nobody says otherwise.
        kohya_prefixes: what kohya's names of it begin with; the first one is written, all are read.
        dropped_level: how module names began, such as ``text_model.encoder.``, before newer versions of the library
            dropped the first level; our names keep it.
        also: names of other classes that have its layers under the same names.
        original: the layers of the original code, under whose names kohya's scripts and ComfyUI write LoRAs, with the
            modules whose weights stand in them, one above the other. A # is the number of a block. What is not in the
            table has no place there. Empty where those programs know the modules under the names that they have here.
        rows: the size of members of unlike size in the table, by the last word of their names; others are 1.
        comfy_prefix: what ComfyUI's own names of it begin with; empty for none.
    """

    model: str
    target_modules: tuple[str, ...]
    kohya_prefixes: tuple[str, ...]
    dropped_level: str = ""
    also: tuple[str, ...] = ()
    original: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    comfy_prefix: str = ""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of its class, then those of the others."""
        return (self.model.partition(":")[2], *self.also)


@dataclass(frozen=True)
class Distilled:
    """How the pipelines of a family that need few steps and no guidance are told from the others, and drawn with.

    Attributes:
        part: whose configuration says it; empty for the pipeline's own.
        setting, value: what it says.
        num_steps, guidance_scale: their usual settings.
    """

    part: str
    setting: str
    value: bool
    num_steps: int
    guidance_scale: float


@dataclass(frozen=True)
class Reading:
    """Rows of a prompt's embedding: a row for each token of one tokenizer, then padding.

    Attributes:
        tokenizer, encoder: the part that makes the tokens, and the (first) one that reads them.
        prompt: the argument of a call that it reads, if it is given; else it reads ``prompt``.
        both_ways: whether each token's row is of the whole prompt, and not only of what stands before it.
        chat: settings of the chat template that the prompt is put into; None for none.
        template: the pipeline's attribute that has the text around the prompt, with {} in its place; empty for none.
            Another one, which goes on with ``_start_idx``, has the number of its first tokens that are left out.
        instruction: the argument of a call that has lines before the prompt, which is read in lower case; empty for
            none. Of their tokens the first and the last are kept.
    """

    tokenizer: str = "tokenizer"
    encoder: str = "text_encoder"
    prompt: str = "prompt"
    both_ways: bool = False
    chat: Mapping[str, bool] | None = None
    template: str = ""
    instruction: str = ""


@dataclass(frozen=True)
class Family:
    """Pipelines that are built alike.

    Attributes:
        name: short; the table of bases and the table of denoisers refer to it.
        title: what messages call it.
        parts: by name, what a LoRA can be on, in the order of files.
        network: the part that is called at every step.
        text_encoders: all text encoders, those without LoRAs too.
        readers: those without LoRAs, with their classes as ``module:object``: they are large, and need memory.
        pipelines: names of the pipeline classes that can be trained.
        text_entry: linear layers of the network through which a prompt's words enter; a LoRA on these alone is small.
        before_entry: modules of the network that they go through before.
        pooled_entry: linear layers of the network that read the ``pooled`` row and nothing else.
        readings: what the embedding of a prompt is made of, one below the other.
        pooled: the place, in what ``encode_prompt`` returns, of one row for the whole prompt; 0 for none.
        mask: the place there of which rows are not padding; 0 for none.
        optional_text_encoders: those that a pipeline draws without too: None there, and zeros for what they say.
        num_steps, guidance_scale: usual settings, for bases that the table of bases does not know.
        guidance: the argument of a call that is the scale of guidance.
        negative_prompt: one without which a call is not guided; empty where the pipeline has its own.
        distilled: how those that need few steps are told; None where nothing in the pipeline tells it.
        token_encoder: the text encoder that soft tokens, learned ones before a prompt, are for; empty for none.
        autoencoder: the part that makes pictures of latents: its name, and its class as ``module:object``.
        scheduler: the class that is trained with, as ``module:object``; empty for the pipeline's own.
        half_precision: the dtype of two bytes that its models were trained in, or are known to bear.
        wide_autoencoder: whether an autoencoder with ``force_upcast`` overflows in float16. That is the setting's
            default, so that in other families it says nothing.
    """

    name: str
    title: str
    parts: Mapping[str, Part]
    network: str
    text_encoders: tuple[str, ...]
    pipelines: tuple[str, ...]
    readers: Mapping[str, str] = field(default_factory=dict)
    text_entry: tuple[str, ...] = ()
    before_entry: tuple[str, ...] = ()
    pooled_entry: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = (Reading(),)
    pooled: int = 0
    mask: int = 0
    optional_text_encoders: tuple[str, ...] = ()
    num_steps: int = 30
    guidance_scale: float = 7.5
    guidance: str = "guidance_scale"
    negative_prompt: str = ""
    distilled: Distilled | None = None
    token_encoder: str = ""
    autoencoder: tuple[str, str] = ("vae", "diffusers:AutoencoderKL")
    scheduler: str = ""
    half_precision: str = "float16"
    wide_autoencoder: bool = False
