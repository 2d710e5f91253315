"""A Space on Hugging Face: the interactive page of fair-adaptors, with the sandbox, on the Space's own CPU."""

import os

from fair_adaptors.app.page import serve
from fair_adaptors.sandbox import load_sandbox_pipeline

# For another model: pipe = DiffusionPipeline.from_pretrained(BASE), and its name as `base`.
port = int(os.environ.get("PORT", "7860"))
serve(load_sandbox_pipeline(), base="sandbox", host="0.0.0.0", port=port, open_browser=False)
