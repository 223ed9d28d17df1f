import pytest
import torch

from trainers.models.conditioning import Film, Inputs, coordinates, modulated


@pytest.mark.parametrize("grid", [(5,), (24, 40), (3, 1, 7)])
def test_coordinates_run_from_minus_one_to_one_along_each_axis(grid: tuple[int, ...]) -> None:
    places = coordinates(grid)
    assert places.shape == (len(grid), *grid)
    for axis, points in enumerate(grid):
        along = places[axis].movedim(axis, 0).reshape(points, -1)
        assert (along == along[:, :1]).all(), "varies across the axis"
        wanted = torch.linspace(-1, 1, points) if points > 1 else torch.zeros(1)
        torch.testing.assert_close(along[:, 0], wanted)


def test_numbers_are_constant_channels_behind_fields_and_coordinates() -> None:
    given, numbers = torch.randn(2, 3, 4, 5), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    inputs = Inputs("channels", num_inputs=2, given_channels=3, grid=(4, 5))
    everything = inputs(numbers, given)
    assert everything.shape == (2, inputs.channels, 4, 5)
    torch.testing.assert_close(everything[:, :3], given)
    torch.testing.assert_close(everything[1, 3:5], coordinates((4, 5)))
    assert (everything[1, 5] == 3.0).all()
    assert (everything[1, 6] == 4.0).all()


def test_film_leaves_the_numbers_out_of_the_channels() -> None:
    inputs = Inputs("film", num_inputs=2, given_channels=1, grid=(6,))
    given = torch.randn(3, 1, 6)
    assert (inputs.film, inputs.channels) == (True, 2)
    assert torch.equal(inputs(torch.zeros(3, 2), given), inputs(torch.ones(3, 2), given))


def test_without_numbers_there_is_no_film() -> None:
    inputs = Inputs("film", num_inputs=0, given_channels=1, grid=(6,))
    assert (inputs.film, inputs.channels) == (False, 2)


def test_coordinates_are_no_part_of_the_state() -> None:
    assert Inputs("film", num_inputs=2, given_channels=1, grid=(6,)).state_dict() == {}


def test_film_gives_every_block_a_scale_and_a_shift() -> None:
    film = Film(3, [4, 7])
    by = film(torch.randn(5, 3))
    assert [each.shape for each in by] == [(5, 8), (5, 14)]
    features = torch.randn(5, 4, 6, 2)
    scale, shift = by[0][..., None, None].split(4, dim=1)
    torch.testing.assert_close(modulated(features, by[0]), features * (1 + scale) + shift)
    assert modulated(features, None) is features
