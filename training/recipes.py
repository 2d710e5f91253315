"""Recipes: a row for each adaptor that holds only what differs from the defaults of ``TrainConfig``."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diffusers import StableDiffusionPipeline
from torch import Tensor

from fair_adaptors.errors import ConfigError
from fair_adaptors.sandbox.pipeline import GUIDANCE
from fair_adaptors.sandbox.prompts import GENDERS, TONES

from .config import Attribute, TrainConfig, override

SANDBOX_GENDER = TrainConfig(
    name="sandbox-gender",
    base="sandbox",
    attributes=(Attribute("gender", GENDERS, (0.5, 0.5), factor1=0.8, factor2=0.8),),
    rank=8,
    iterations=160,
    prompts_per_step=2,
    num_steps=6,
    gradient_steps=3,
    images_per_call=72,
    guidance_scale=GUIDANCE,
    unguided=100,
    learning_rate=6e-3,
    ema=0.95,
    threshold=0.6,
    preservation=40.0,
    sample_every=40,
)

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "sandbox-gender": lambda: SANDBOX_GENDER,
    "sandbox-gender-tone": lambda: _gender_tone(),
}


def _gender_tone() -> TrainConfig:
    import dataclasses

    tone = Attribute("tone", TONES, (0.25,) * 4, factor1=0.8, factor2=0.8)
    return dataclasses.replace(
        SANDBOX_GENDER,
        name="sandbox-gender-tone",
        attributes=(*SANDBOX_GENDER.attributes, tone),
        images_per_prompt=32,
        iterations=130,
        unguided=80,
        images_per_call=96,
    )


@dataclass(frozen=True)
class Setting:
    """What a recipe trains on and against.

    Attributes:
        pipe: the base.
        prompts: training prompts, and prompts to validate on.
        classifier: frozen; images [N, 3, H, W] in [0, 1] to logits [N, K] of each attribute.
        judge: another classifier, for the numbers at the end.
        encoders: frozen; images to unit features, for preservation.
    """

    pipe: StableDiffusionPipeline
    prompts: tuple[str, ...]
    validation_prompts: tuple[str, ...]
    classifier: Callable[[Tensor], Mapping[str, Tensor]]
    judge: Callable[[Tensor], Mapping[str, Tensor]]
    encoders: Mapping[str, Callable[[Tensor], Tensor]]


def get_recipe(name: str, overrides: dict[str, str] | None = None) -> TrainConfig:
    """Return a recipe, with settings replaced by ``overrides``.

    Raises:
        ConfigError: no such recipe or setting, with a suggestion.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"there is no recipe {name!r}.{hint} Recipes: {', '.join(RECIPES)}.")
    return override(RECIPES[name](), overrides or {})


def load_setting(config: TrainConfig) -> Setting:
    """Load the models and prompts of a recipe.

    Raises:
        ConfigError: a base that no setting is known for.
    """
    if config.base != "sandbox":
        raise ConfigError(
            f"no prompts and classifiers are known for base {config.base!r}; only 'sandbox' has them yet"
        )
    from fair_adaptors.sandbox.classifiers import load_classifier, load_encoder
    from fair_adaptors.sandbox.pipeline import load_sandbox_pipeline
    from fair_adaptors.sandbox.prompts import prompts

    return Setting(
        load_sandbox_pipeline(),
        prompts("train"),
        prompts("validation"),
        load_classifier("training"),
        load_classifier("evaluation"),
        {"portraits": load_encoder()},
    )
