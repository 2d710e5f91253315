"""What training costs: passes and operations are counted, hours and memory estimated; no GPU is measured.

Three things. The rows that go through the network per image and iteration, in the published form and in ours, are
counted on a tiny pipeline and compared with their formulas. The floating-point operations of models of the real sizes
are counted on torch's meta device. From both, the cards' data sheets and the assumptions in ``ASSUMED``, come the
hours and the memory of each recipe. Writes the tables of ``docs/cost.md``.
"""

from collections.abc import Mapping
from typing import Any

from fair_adaptors.training.cost import (
    CARDS,
    SEES,
    SUSTAINED,
    Operations,
    Passes,
    hours,
    passes,
    seconds_per_image,
    work_per_image,
)

from benchmarks._operations import VISION, base_operations, vision_operations
from benchmarks._passes import FORMS, count_passes
from benchmarks._report import report, table, write_tables

ROOM = 24 * 1.024**3
"""Gigabytes of the smallest of them: its 24 GB count 2³⁰ bytes each."""

ASSUMED = {**SUSTAINED, "gigabytes": 3.0}
"""With the gigabytes of classifiers' and encoders' activations, the libraries' own, and what the allocator wastes."""
KNOWN_TIMES: dict[str, dict[str, Any]] = {
    "the paper's training": {"card": "A100", "cards": 8, "hours": 48.0},  # we take it to be of its first adaptor
    "diffusers' sampling of SDXL": {"card": "A100", "cards": 1, "hours": 3.31 / 3600, "steps": 30},
}
"""What others report, in half precision, to tell what share of its peak a card sustains: paper §4; documentation of
diffusers, "Accelerate inference of text-to-image diffusion models", with fused attention and not compiled."""

SHOWN = ("gender", "gender-race", "sdxl-gender-race")
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "the recipe's own": {},
    "`max_steps=10`": {"max_steps": "10"},
    "`gradient_steps=2`": {"gradient_steps": "2"},
    "both of these": {"max_steps": "10", "gradient_steps": "2"},
    "`originals_pool=1`": {"originals_pool": "1"},
    "`gradient_decoder=madebyollin/taesd`": {"gradient_decoder": "madebyollin/taesd"},
    "`unconditional_gradient=false`": {"unconditional_gradient": "false"},
}
"""Settings that a recipe does not have, and that change its hours."""
PUBLISHED = "the published number of iterations"
KEPT = ("base's weights", "adaptor", "latents", "pictures")
PASSING = ("*network*", "*network, gradient*", "*decoding, validation*", "*decoding, gradient*")
"""What the memory is counted of, as ``fair_adaptors.training.plan.memory`` has it; of the second, one at a time."""
FORMULAS = ("4bT forward, bT backward", "3bT, bT", "2bT + bK, bK", "bT + bK, bK")
STEPS, GRADIENT_STEPS = 21, 5  # the recipes draw T from 19 to 23
JUDGE = "CLIP ViT-L/14"


def count_forms(unet: Operations) -> list[dict[str, Any]]:
    """Count the network's rows in each form; they are what the formula says.

    Args:
        unet: operations of a row.
    """
    found = []
    for (form, settings), formula in zip(FORMS.items(), FORMULAS, strict=True):
        counted = count_passes(form, STEPS, GRADIENT_STEPS)
        assert counted == passes(STEPS, GRADIENT_STEPS, **settings), f"{form}: {counted}"
        rows = counted["network"]
        found.append({"form": form, **rows._asdict(), "formula": formula, "teraflops": rows.teraflops(unet)})
    return found


def recipe_cost(name: str, bases: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    """Estimate the teraflops per image, the gigabytes, and on each card the seconds per iteration and the hours.

    Args:
        bases: the operations of the network and the decoder of each base.
        vision: the operations and megabytes of what looks at images.
    """
    from fair_adaptors.training.engine.denoisers import denoiser_of
    from fair_adaptors.training.memory import memory, skeleton
    from fair_adaptors.training.plan import originals_made
    from fair_adaptors.training.recipes import get_recipe

    from fair_adaptors.adaptor.bases import BASES
    from fair_adaptors.vision.face_encoders import PUBLISHED as FACE_ENCODERS

    config = get_recipe(name)
    base, shapes = next(known.short_name for known in BASES if config.base in known.names), skeleton(config.base)
    branches = denoiser_of(shapes).branches(config.guidance_scale)
    seeing = {model: one for model, (one, _) in vision.items()}
    work = work_per_image(config, originals_made(config), bases[base], seeing, branches=branches)
    needed = memory(config, shapes, config.images_per_prompt, branches)
    seen_by = sum(vision[one][1] for one in (JUDGE, *(model for models in SEES.values() for model in models)))
    gigabytes = {
        "training": needed.total / 1e3,
        "classifiers and encoders": (seen_by + FACE_ENCODERS[config.face_encoder].megabytes) / 1e3,
    }
    counted = (value / 1e3 for part in (needed.kept, needed.passing) for value in part.values())
    seconds = {card: config.images_per_prompt * seconds_per_image(work, card) for card in CARDS}
    return {
        "recipe": name,
        "base": base,
        "images": config.images_per_prompt,
        "iterations": config.iterations,
        **work,
        **dict(zip((*KEPT, *PASSING), counted, strict=True)),
        **gigabytes,
        "gigabytes": sum(gigabytes.values()) + ASSUMED["gigabytes"],
        **{f"{card}, seconds": value for card, value in seconds.items()},
        **{f"{card}, hours": value * config.iterations / 3600 for card, value in seconds.items()},
    }


def options(name: str) -> list[dict[str, Any]]:
    """Estimate the hours of a recipe with settings that it may be given, and with the published iterations."""
    from fair_adaptors.training.paper import published_settings
    from fair_adaptors.training.plan import originals_made
    from fair_adaptors.training.recipes import get_recipe

    from fair_adaptors.adaptor.bases import find_base

    found = []
    published = {"iterations": str(published_settings(get_recipe(name))["iterations"])}
    for said, settings in (OPTIONS | {PUBLISHED: published}).items():
        config = get_recipe(name, settings)
        base = find_base(config.base)
        assert base is not None
        by_card = hours(config, base.short_name, originals_made(config))
        found.append({"settings": said, "recipe": name, "hours": by_card["RTX 4090"]})
    return found


def sustained(recipe: Mapping[str, Any], bases: Mapping[str, Mapping[str, Operations]]) -> dict[str, dict[str, Any]]:
    """Return of each of ``KNOWN_TIMES`` the teraflops of the base and the share of the card's peak that they mean.

    Args:
        recipe: what the paper trained.
        bases: the operations of the network and the decoder of each base.
    """
    training, sampling = KNOWN_TIMES
    rows = passes(STEPS, GRADIENT_STEPS, **FORMS["published: one graph, checkpointed"])
    image = sum(rows[model].teraflops(one) for model, one in bases["sd15"].items() if model in rows)
    xl = bases["sdxl"]
    work = {
        training: image * recipe["images"] * recipe["iterations"],
        sampling: 2 * KNOWN_TIMES[sampling]["steps"] * xl["network"].forward + xl["decoder"].forward,
    }
    shares = {}
    for name, known in KNOWN_TIMES.items():
        card_seconds = known["cards"] * known["hours"] * 3600
        shares[name] = {"teraflops": work[name], "share": work[name] / card_seconds / CARDS[known["card"]]["bfloat16"]}
    return shares


def main() -> None:
    """Print a row per recipe and write the document's tables."""
    from fair_adaptors.training.recipes import RECIPES

    from fair_adaptors.adaptor.bases import BASES

    bases = {base.short_name: base_operations(base.short_name) for base in BASES if not base.plugin}
    vision = {name: vision_operations(name) for name in VISION}
    people = [name for name in RECIPES if not name.startswith("sandbox")]
    rows = [recipe_cost(name, bases, vision) for name in people]
    details: dict[str, Any] = {
        "options": [option for name in SHOWN for option in options(name)],
        "forms": count_forms(bases["sd15"]["network"]),
        "bases": bases,
        "vision": vision,
        "sustained": sustained(rows[0], bases),
    }
    report("cost", rows, **details, cards=CARDS, assumed=ASSUMED)
    write_tables("cost", tables(rows, **details))


def tables(
    rows: list[dict[str, Any]],
    *,
    options: list[dict[str, Any]],
    forms: list[dict[str, Any]],
    bases: Mapping[str, Mapping[str, Any]],
    vision: Mapping[str, Any],
    sustained: Mapping[str, Mapping[str, float]],
) -> list[str]:
    """Return what stands between the marks of ``docs/cost.md``: the answer, the calls, the arithmetic."""
    counted = {f"{base}, {model}": one for base, models in bases.items() for model, one in models.items()}
    counted |= {name: one for name, (one, _) in vision.items()}
    answer = [
        (
            f"`{row['recipe']}`",
            f"{row['gigabytes']:.0f} GB",
            "yes" if row["gigabytes"] <= ROOM else "no",
            *(f"{row[f'{card}, hours']:,.0f} h" for card in CARDS),
        )
        for row in rows
    ]
    calls = [
        (
            form["form"],
            *(f"{form[field]:.0f}" for field in Passes._fields),
            form["formula"],
            f"{form['teraflops'] / forms[0]['teraflops']:.0%}",
        )
        for form in forms
    ]
    models = [(name, f"{one[0]:.2f}", f"{one[1]:.2f}", f"{one[1] / one[0]:.2f}") for name, one in counted.items()]
    work = [
        (
            f"`{row['recipe']}`",
            f"{row['images']} × {row['iterations']:,}",
            f"{row['bfloat16']:.0f}",
            f"{row['float32']:.1f}",
            *(f"{row[f'{card}, seconds']:.1f}" for card in CARDS),
        )
        for row in rows
    ]
    parts = (*KEPT, *PASSING, "classifiers and encoders", "gigabytes")
    memory = [(f"`{row['recipe']}`", *(f"{row[part]:.1f}" for part in parts)) for row in rows]
    cards = [(card, said["bfloat16"], said["float32"], said["source"]) for card, said in CARDS.items()]
    shares = [
        (
            name,
            f"{known['cards']} × {known['card']}",
            f"{known['hours'] * 3600:,.3g} s" if scale == 1 else f"{known['hours']:.0f} h",
            f"{sustained[name]['teraflops'] / scale:.0f} {unit}",
            f"{sustained[name]['share']:.2f}",
        )
        for (name, known), (scale, unit) in zip(KNOWN_TIMES.items(), ((1e6, "EFLOP"), (1, "TFLOP")), strict=True)
    ]
    chosen = [
        (said, *(f"{option['hours']:,.0f} h" for option in options if option["settings"] == said))
        for said in (*OPTIONS, PUBLISHED)
    ]
    return [
        table(["recipe", "memory", "fits on 24 GB", *CARDS], answer),
        table(["settings", *(f"`{name}`" for name in SHOWN)], chosen),
        table(["form", "forward, no gradient", "with gradient", "again", "backward", "formula", "operations"], calls),
        table(["a row through", "forward", "backward", "backward / forward"], models),
        table(["recipe", "images × iterations", "bfloat16", "float32", *(f"{card}, s" for card in CARDS)], work),
        table(["card", "bfloat16", "float32", "as NVIDIA states"], cards),
        table(["known", "on", "takes", "operations", "share of the peak"], shares),
        table(["recipe", *parts[:-1], "in all"], memory),
    ]


if __name__ == "__main__":
    main()
