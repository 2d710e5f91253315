"""Picture grids: everything has its place, and what a picture shows is what came in."""

import numpy as np
import pytest
import torch

from fair_adaptors.report.grid import before_after_grid, pictures, plain_grid


def flat(*shape: int, value: float) -> torch.Tensor:
    return torch.full((*shape, 3, 16, 16), value)


def test_each_prompt_has_a_row_before_and_a_row_after_with_the_same_columns() -> None:
    before, after = flat(2, 5, value=0.2), flat(2, 5, value=0.4)
    sheet = before_after_grid(before, after, ["a nurse", "a guard"], title="t", tile=32)
    gray = np.asarray(sheet.convert("L"))
    dark, light = np.abs(gray.astype(int) - 51) <= 1, np.abs(gray.astype(int) - 102) <= 1
    size = 32 * 32
    assert 9.5 * size < dark.sum() < 10.5 * size and 9.5 * size < light.sum() < 10.5 * size
    assert (dark.sum(0) > 30).tolist() == (light.sum(0) > 30).tolist(), "columns stand under each other"
    assert np.flatnonzero(dark.sum(1) > 100)[0] < np.flatnonzero(light.sum(1) > 100)[0], "before stands above after"


def test_labels_are_drawn_and_what_is_too_long_is_cut() -> None:
    images = torch.ones(1, 4, 3, 16, 16)
    plain = before_after_grid(images, images, ["a nurse"], title="t", subtitle="s", notes=[("", "")])
    noted = before_after_grid(images, images, ["a nurse"], title="t", subtitle="s", notes=[("91 % female", "50 %")])
    assert plain.size == noted.size and plain.tobytes() != noted.tobytes()
    endless = before_after_grid(images, images, ["very\nlong " * 500], title="long " * 500, subtitle="long " * 500)
    assert endless.size == plain.size
    margin = np.asarray(endless.convert("L"))[:, -30:]
    assert (margin > 250).all(), "text stays out of the margin"


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (8, 8, 1), (9, 8, 2)])
def test_a_plain_grid_has_room_for_every_image_and_no_more(count: int, columns: int, rows: int) -> None:
    sheet = plain_grid(flat(count, value=0.0), tile=20)
    black = np.asarray(sheet.convert("L")) < 10
    assert (black.sum(0) >= 15).sum() == pytest.approx(20 * columns, abs=2 * columns)
    assert (black.sum(1) >= 15).sum() == pytest.approx(20 * rows, abs=2 * rows)
    assert plain_grid(flat(count, value=0.0), tile=20, title="a prompt").height > sheet.height
    labelled = plain_grid(flat(count, value=0.0), tile=20, labels=["a nurse"] * rows)
    assert labelled.height == sheet.height + 24 * rows


def test_images_that_are_not_square_keep_their_shape() -> None:
    black = np.asarray(plain_grid(torch.zeros(1, 3, 16, 32), tile=64).convert("L")) < 10
    assert ((black.sum(0) > 10).sum(), (black.sum(1) > 10).sum()) == (64, 32)


def test_pictures_are_the_pixels() -> None:
    images = torch.tensor([0.0, 0.5, 1.0, 1.2])[:, None, None, None].expand(4, 3, 2, 3)
    assert [np.asarray(picture)[0, 0, 0] for picture in pictures(images)] == [0, 128, 255, 255]
    assert pictures(images)[0].size == (3, 2)
