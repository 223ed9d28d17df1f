"""What a study may say about ``kind: lorenz``, and what it is told when it says something else."""

from solvers.configs.lorenz import LorenzConfig


def test_three_channels_at_one_point() -> None:
    config = LorenzConfig(steps=7, dt=0.5)
    spec = config.spec()
    assert spec.names == ("x", "y", "z")
    assert spec.sample_shape == (3, 1)
    assert (config.max_snapshots, config.end_time) == (8, 3.5)


def test_the_ranges_hold_the_classical_values() -> None:
    ranges = {p.name: (p.low, p.high) for p in LorenzConfig().parameters()}
    assert list(ranges) == ["sigma", "rho", "beta", "x", "y", "z"]
    for name, value in (("sigma", 10.0), ("rho", 28.0), ("beta", 8 / 3)):
        assert ranges[name][0] < value < ranges[name][1]
