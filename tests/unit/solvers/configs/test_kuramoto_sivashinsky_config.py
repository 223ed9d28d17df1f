"""What a study may say about ``kind: kuramoto_sivashinsky``, and what it is told otherwise."""

from solvers.configs.kuramoto_sivashinsky import KuramotoSivashinskyConfig as Config
from tests.refusals import refusal


def test_the_coarsest_grid_is_the_one_that_a_refusal_names() -> None:
    assert Config(grid=(92,), length=64.0).spec().spacing[0] <= 0.7
    assert "Give at least 92 points" in refusal(Config, {"grid": [91], "length": 64.0})


def test_one_channel_on_the_points() -> None:
    config = Config(grid=(44,), length=22.0, steps=7, dt=0.5)
    spec = config.spec()
    assert (spec.names, spec.units, spec.shape, spec.spacing) == (("u",), ("1",), (44,), (0.5,))
    assert (config.max_snapshots, config.end_time) == (8, 3.5)


def test_two_parameters_choose_the_initial_state() -> None:
    ranges = {p.name: (p.low, p.high) for p in Config().parameters()}
    assert ranges == {"amplitude": (0.1, 1.0), "seed": (0.0, 1e6)}
