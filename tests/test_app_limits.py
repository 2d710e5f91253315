"""How much a page draws for its visitors: nobody takes what belongs to others, and everybody is told when to come."""

import pytest

from fair_adaptors.app.limits import ALONE, PUBLIC, Allowance, Limits, limits_for
from fair_adaptors.errors import ConfigError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_visitor_has_so_many_images_an_hour_and_others_are_not_touched() -> None:
    clock = Clock()
    allowance = Allowance(Limits(visitor_images=10), clock=clock)
    allowance.spend("1.2.3.4", 6)
    clock.now = 600
    allowance.spend("1.2.3.4", 4)
    allowance.spend("1.2.3.5", 10)
    clock.now = 1800
    with pytest.raises(
        ConfigError, match="10 images an hour for each visitor, and not enough are left. Try again in 30 min"
    ):
        allowance.spend("1.2.3.4", 6)
    with pytest.raises(ConfigError, match="Try again in 40 minutes"):
        allowance.spend("1.2.3.4", 7)
    with pytest.raises(ConfigError, match="and you asked for more"):
        allowance.spend("9.9.9.9", 11)
    clock.now = 3600
    allowance.spend("1.2.3.4", 6)


def test_all_visitors_together_have_a_limit() -> None:
    allowance = Allowance(Limits(all_images=10), clock=Clock())
    allowance.spend("1.2.3.4", 6)
    with pytest.raises(ConfigError, match="draws at most 10 images an hour, and not enough are left"):
        allowance.spend("1.2.3.5", 5)


def test_the_addresses_of_one_household_are_one_visitor() -> None:
    allowance = Allowance(Limits(visitor_images=10), clock=Clock())
    allowance.spend("2001:db8:1:2::1", 10)
    with pytest.raises(ConfigError):
        allowance.spend("2001:db8:1:2:ffff::9", 1)
    allowance.spend("2001:db8:1:3::1", 10)
    allowance.spend("no address", 10)


def test_alone_there_is_no_limit_and_in_public_there_is_one_that_can_be_changed() -> None:
    assert limits_for("127.0.0.1") == ALONE
    assert limits_for("0.0.0.0") == PUBLIC
    assert limits_for("0.0.0.0", visitor_images=8) == Limits(20, 8, PUBLIC.all_images)
    assert limits_for("localhost", waiting=3, visitor_images=8, all_images=9) == Limits(3, 8, 9)
    Allowance(ALONE).spend("127.0.0.1", 10**9)


@pytest.mark.parametrize("name", ["waiting", "visitor_images", "all_images"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` is 0"):
        Limits(**{name: 0})
