"""How the models of each pipeline family are called in training: a denoiser each, by the table in ``denoisers``."""
