"""Training fair adaptors (installed as `fair_adaptors.training`)."""
