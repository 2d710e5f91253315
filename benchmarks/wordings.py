"""Count what words and directions add to the time of an image.

Each distinct wording is read by the text encoders once. A prompt of which n images are drawn is read once without an
adaptor. With one it is read as often as classes were drawn for its images: once for a single image, twice at most for
gender. With guidance the negative prompt is counted as often. Floating-point operations of models of the published
sizes are counted on torch's meta device; those of the network and the decoder are from ``benchmarks.cost``. What the
processor does beside that is not counted: the gate takes about half a millisecond a prompt.
"""

import json
from typing import Any

from benchmarks._report import RESULTS, report

BAR = 2.0
"""Percent."""
FEW_STEPS = 10
"""Bases of fewer are drawn without guidance."""
CLASSES = 2
"""Of gender."""
IMAGES = (2, 4, 16)
TOKENS = {"T5EncoderModel": {"sd35": 256, "flux": 512}, "Qwen3ForCausalLM": 512, "Qwen3Model": 512}
"""How many tokens a prompt is made to have, as the pipelines of diffusers do it; CLIP's have 77."""
PROMPT = 64
"""Tokens of a prompt where it is not made longer, with the template that it is put into."""


def text_teraflops(base: str) -> float:
    """Count what a prompt takes in all text encoders of a base."""
    import torch
    from fair_adaptors.training.memory import skeleton
    from torch.utils.flop_counter import FlopCounterMode

    total = 0
    for name, module in vars(skeleton(base)).items():
        if name.startswith("text_encoder") and module is not None:
            kind = type(module).__name__
            known = TOKENS.get(kind, 77 if kind.startswith("CLIP") else PROMPT)
            length = known if isinstance(known, int) else next(n for of, n in known.items() if base.startswith(of))
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                getattr(module, "model", module)(torch.zeros(1, length, dtype=torch.long, device="meta"))
            total += counter.get_total_flops()
    return total / 1e12


def row_of(base: Any, models: dict[str, Any]) -> dict[str, Any]:
    """Return a base's row: what texts and an image take, and percent more than without, for n images of a prompt."""
    text, usual = text_teraflops(base.short_name), base.defaults
    few = usual.num_steps < FEW_STEPS or base.short_name.startswith("flux")  # FLUX.1 is told its guidance
    passes = 1 if few or usual.guidance_scale <= 1 else 2
    image = passes * usual.num_steps * models["network"][0] + models["decoder"][0]

    def more(readings: int, images: int) -> float:
        return 100 * passes * text * (readings - 1) / (passes * text + images * image)

    shares = {f"{n} images": more(min(n, CLASSES), n) for n in IMAGES}
    before = {f"{n} images, each encoded": more(n, n) for n in IMAGES}
    held = all(one <= BAR for one in shares.values())
    sizes = {"texts, teraflops": text, "an image, teraflops": image}
    return {"base": base.short_name, "steps": usual.num_steps, **sizes, **shares, **before, "held": held}


def main() -> None:
    """Print a row per base."""
    from fair_adaptors.adaptor.bases import BASES

    counted = json.loads((RESULTS / "cost.json").read_text(encoding="utf-8"))["bases"]
    report("wordings", [row_of(one, counted[one.short_name]) for one in BASES if one.short_name in counted])


if __name__ == "__main__":
    main()
