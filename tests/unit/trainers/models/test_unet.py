import pytest
import torch

from trainers.configs.models import UnetConfig
from trainers.models.registry import build_model
from trainers.models.unet import Unet


def network(grid: tuple[int, ...], depth: int = 1, *, periodic: bool = False) -> Unet:
    torch.manual_seed(4)
    config = UnetConfig(channels=3, depth=depth, norm="none", activation="silu", periodic=periodic)
    made = build_model(config, num_inputs=0, field_shape=(1, *grid), given_channels=1)
    assert isinstance(made, Unet)
    return made


def felt(unet: Unet, grid: tuple[int, ...]) -> torch.Tensor:
    """Where the prediction changes with the first point of the input field."""
    given = torch.randn(1, 1, *grid, generator=torch.Generator().manual_seed(1))
    other = given.clone()
    other.view(-1)[0] += 1000  # to be seen above rounding at a distance
    with torch.no_grad():
        before, after = unet(torch.zeros(1, 0), given), unet(torch.zeros(1, 0), other)
    return torch.ne(before, after)[0, 0]


@pytest.mark.parametrize("periodic", [False, True])
def test_a_periodic_domain_has_no_ends(periodic: bool) -> None:
    assert felt(network((64,), periodic=periodic), (64,))[-1] == periodic
    assert not felt(network((64,), periodic=periodic), (64,))[32]


def test_depth_lets_it_see_farther() -> None:
    near, far = (int(felt(network((128,), depth), (128,)).sum()) for depth in (1, 3))
    assert near < 20
    assert far > 2 * near


@pytest.mark.parametrize("silenced", [slice(0, 6), slice(6, 9)])
def test_the_coarse_and_the_fine_way_both_reach_the_prediction(silenced: slice) -> None:
    unet = network((9, 8))
    first = unet.up[0].get_parameter("first.weight")
    before = unet(torch.zeros(1, 0), torch.ones(1, 1, 9, 8))
    with torch.no_grad():
        first[:, silenced] = 0.0
    assert not torch.equal(unet(torch.zeros(1, 0), torch.ones(1, 1, 9, 8)), before)
    assert felt(unet, (9, 8)).any()


def test_the_last_point_of_an_odd_axis_stands_for_itself() -> None:
    halved = network((5,))._halve(torch.tensor([[[1.0, 3.0, 5.0, 7.0, 20.0]]]))
    assert halved.tolist() == [[[2.0, 6.0, 20.0]]]
