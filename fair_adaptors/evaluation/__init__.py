"""Measuring what a text-to-image model shows: prompts, attributes, metrics and reports."""
