"""What differs between pipeline families: one file each, and their table. Each has a denoiser in training too."""
