import pytest
import torch

from trainers.configs.models import MessagePassingConfig
from trainers.models.message_passing import grid_edges
from trainers.models.registry import build_model


def pairs(grid: tuple[int, ...], neighbours: int, *, periodic: bool) -> set[tuple[int, int]]:
    edges, _ = grid_edges(grid, neighbours, periodic=periodic)
    found = list(map(tuple, edges.T.tolist()))
    assert len(found) == len(set(found)), "an edge stands twice"
    return set(found)


def test_on_a_line_the_ends_have_one_neighbour() -> None:
    assert pairs((4,), 1, periodic=False) == {(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)}
    assert pairs((4,), 1, periodic=True) == pairs((4,), 1, periodic=False) | {(0, 3), (3, 0)}


@pytest.mark.parametrize(
    ("grid", "neighbours", "periodic", "count"),
    [
        ((4, 6), 1, True, 24 * 8),
        ((4, 6), 1, False, 4 * 3 + 12 * 5 + 8 * 8),
        ((5, 7), 2, True, 35 * 24),
        ((1, 6), 1, True, 6 * 2),
        ((3, 4, 5), 1, True, 60 * 26),
        ((3,), 7, False, 6),
    ],
)
def test_every_point_hears_all_points_within_reach(
    grid: tuple[int, ...], neighbours: int, periodic: bool, count: int
) -> None:
    assert len(pairs(grid, neighbours, periodic=periodic)) == count


def test_a_way_leads_from_sender_to_receiver() -> None:
    edges, ways = grid_edges((5, 7), 2, periodic=False)
    places = torch.stack(torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij"))
    places = places.flatten(1).T.float()
    torch.testing.assert_close(ways, (places[edges[0]] - places[edges[1]]) / 2)


def prediction(config: MessagePassingConfig, given: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    network = build_model(config, num_inputs=1, field_shape=(1, 9, 8), given_channels=1)
    with torch.no_grad():
        fields: torch.Tensor = network(torch.zeros(len(given), 1), given)
    return fields


@pytest.mark.parametrize(("layers", "neighbours"), [(1, 1), (2, 1), (1, 3)])
@pytest.mark.parametrize("periodic", [False, True])
def test_a_change_is_felt_as_far_as_messages_go(
    layers: int, neighbours: int, periodic: bool
) -> None:
    config = MessagePassingConfig(
        channels=6, layers=layers, neighbours=neighbours, periodic=periodic
    )
    given = torch.randn(2, 1, 9, 8, generator=torch.Generator().manual_seed(1))
    other = given.clone()
    other[:, :, 0, 0] += 1
    felt = (prediction(config, given) != prediction(config, other)).any(0)[0].nonzero().tolist()
    reach = layers * neighbours

    def distance(place: int, points: int) -> int:
        return min(place, points - place) if periodic else place

    wanted = [
        [i, j] for i in range(9) for j in range(8) if max(distance(i, 9), distance(j, 8)) <= reach
    ]
    assert felt == wanted


def test_edges_are_no_part_of_the_state() -> None:
    network = build_model(MessagePassingConfig(channels=3), num_inputs=1, field_shape=(1, 5))
    assert not {"edges", "ways"} & set(network.state_dict())
