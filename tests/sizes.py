"""How often tests of chance try: a few times in ``make test``, and many times in ``make test-slow``."""

import pytest


def few_or_many(name: str, few: int, many: int) -> pytest.MarkDecorator:
    """Run a test twice, with ``few`` as its argument of that name, and, marked slow, with ``many``."""
    return pytest.mark.parametrize(name, [few, pytest.param(many, marks=pytest.mark.slow)])


TRIALS = few_or_many("trials", 150, 500)
"""Experiments from which the coverage of an interval is counted."""
CASES = few_or_many("cases", 67, 800)
"""Damaged folders, in each of three tests."""
KILLS = few_or_many("kills", 5, 24)
"""Processes that are killed at random moments."""
