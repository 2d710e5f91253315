"""Train every kind of adaptor on the sandbox, with several seeds: soft tokens, U-Net, text encoder, a 75/25 target.

Held-out prompts, the evaluation classifier, as in ``sandbox_bias``.
"""

from benchmarks.sandbox_bias import Bars, main

BARS: Bars = {
    ("sandbox-gender-tokens", "test"): {"gender": (0, 0.40), "occupation": 0.05},
    ("sandbox-gender-unet", "test"): {"gender": (0, 0.30), "occupation": 0.05},
    ("sandbox-gender-text", "test"): {"gender": (0, 0.30), "occupation": 0.05},
    ("sandbox-age", "test"): {"old": (0.17, 0.33), "occupation": 0.05},
}
"""As in ``sandbox_bias``; of the 75/25 target, the range of the mean frequency of old people."""

if __name__ == "__main__":
    main("sandbox_variants", BARS, splits=("test",))
