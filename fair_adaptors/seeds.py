"""Every derived seed: a hash of the words that name what is random."""

import hashlib


def image_seed(seed: int, prompt: str, index: int) -> int:
    """Return the seed of one image: a function of (seed, prompt, index) alone, the same on every machine."""
    digest = hashlib.sha256(f"{seed}\n{index}\n{prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def derived_seed(*parts: object) -> int:
    """Return a seed of 63 bits that is a function of ``parts`` alone, the same on every machine."""
    digest = hashlib.sha256("\n".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
