"""The sandbox's tokenizer."""

from transformers import CLIPTokenizer

from fair_adaptors.sandbox.prompts import AGES, GENDERS, ROLES, SECTORS, TEMPLATE, TONES


def build_tokenizer() -> CLIPTokenizer:
    """Make a CLIP tokenizer that knows every word of the sandbox as one token, and any other text by its letters."""
    words = [*TEMPLATE.format("").replace(",", " ,").lower().split(), *SECTORS, *ROLES, *GENDERS, *TONES, *AGES]
    words = sorted(set(words))
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while pairs := [pair for split in pieces.values() for pair in zip(split, split[1:], strict=False)]:
        best = max(sorted(set(pairs)), key=pairs.count)
        merges.append(best)
        pieces = {word: _merge(split, best) for word, split in pieces.items()}
    symbols = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocab = {symbol: i for i, symbol in enumerate([*symbols, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def _merge(split: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in split:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
