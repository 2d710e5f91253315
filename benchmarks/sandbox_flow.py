"""Train the adaptor of the sandbox's model of a flow with several seeds, and measure it as ``sandbox_bias`` does.

``--set parts=transformer``, ``--set step_weights=image`` and the like try other settings; give the table another
``--name`` then. ``benchmarks.flow_weights`` says what can be told of them without training.
"""

from benchmarks.sandbox_bias import NAMED, OBEYED, Bars, main

BARS: Bars = {
    ("sandbox-flow-gender", "test"): {
        "gender": (0, 0.25),
        "tone shift": (0, 0.06),
        "age shift": (0, 0.06),
        "occupation": 0.02,
        OBEYED.format("gender"): 0.02,
        NAMED: 0.02,
    }
}
"""As in ``sandbox_bias``. The bias before must be 0.75 or more, or there was little to do."""
MINUTES = 15.0

if __name__ == "__main__":
    main("sandbox_flow", BARS, splits=("test",), base="sandbox-flow", most_minutes=MINUTES)
