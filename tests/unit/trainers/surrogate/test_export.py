import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from tests.array_source import (
    GRID,
    linear_held,
    linear_problem,
    linear_source,
    nothing_given,
)
from tests.decay_study import SNAPSHOTS, study, trajectory
from tests.errors import made_errors
from tests.strict import strict_json
from trainers.base import Input
from trainers.config import TrainerConfig
from trainers.results import TrainStats, ValidationResult
from trainers.surrogate.export import export, load_surrogate
from trainers.surrogate.surrogate import Surrogate
from trainers.tasks.build import build_task
from trainers.tasks.direct import Direct
from trainers.tasks.normalization import Normalization

CPU = torch.device("cpu")
INSIDE = {"west": [120.0, 320.0, 480.0], "load": [-1.5, 0.0, 2.5]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run directory with an exported network that was not trained."""
    config, problem = TrainerConfig(), linear_problem()
    normalization = Normalization.of(linear_source().moments(), problem)
    torch.manual_seed(3)
    task = build_task(config, problem, normalization, CPU)
    assert isinstance(task, Direct)
    model = task.network(config.model)
    errors = made_errors([0.1, math.inf], mse=math.inf, relative_l2=math.nan, nrmse=math.inf)
    result = ValidationResult(train_step=9, samples=4, one_step=errors)
    stats = TrainStats(
        rank=0,
        train_step=9,
        loss=0.5,
        learning_rate=1e-3,
        wait_seconds=0.0,
        first_step_seconds=0.1,
        validation=result,
    )
    export(tmp_path / "model", model, config, problem, normalization, stats)
    inputs = torch.from_numpy(linear_held(np.random.default_rng(2), 8).inputs)
    with torch.inference_mode():
        np.save(
            tmp_path / "expected.npy",
            task.predict(model.eval(), inputs, nothing_given(8))[:, 0].numpy(),
        )
    return tmp_path


@pytest.mark.parametrize("inner", ["", "model"])
def test_a_surrogate_that_was_read_back_predicts_the_same_to_the_last_bit(
    folder: Path, inner: str
) -> None:
    surrogate = load_surrogate(folder / inner)
    inputs = linear_held(np.random.default_rng(2), 8).inputs
    prediction = surrogate(inputs[:, :2], inputs[:, 2])
    assert prediction.tobytes() == np.load(folder / "expected.npy").tobytes()


def test_the_card_says_what_it_is_for(folder: Path) -> None:
    card = strict_json((folder / "model" / "card.json").read_text())
    assert card["problem"]["parameters"][1] == {
        "name": "load",
        "unit": "Pa",
        "low": -2.0,
        "high": 3.0,
        "learnt": True,
        "log": False,
    }
    assert card["problem"]["field_units"] == ["K", "Pa"]
    assert card["trainer"]["model"]["kind"] == "mlp"
    assert card["validation"]["one_step"]["fields"][0]["mse"] is None
    assert card["validation"]["one_step"]["spread"]["diverged"] == 1
    assert card["versions"]["torch"] == torch.__version__
    assert card["network"]["parameters"] == 84_806
    assert card["query"]["device"] == "cpu"
    assert 0.0 < card["query"]["alone_seconds"] < 60.0
    assert (folder / "model" / "card.md").read_text().startswith("# Surrogate\n")
    assert not list(folder.glob("model/*.partial"))


def test_parameters_by_name_and_as_an_array_are_the_same(folder: Path) -> None:
    surrogate = load_surrogate(folder)
    by_name = surrogate(INSIDE, 0.25)
    array = np.stack([INSIDE["west"], INSIDE["load"]], axis=1)
    np.testing.assert_array_equal(by_name, surrogate(array, [0.25, 0.25, 0.25]))
    assert by_name.shape == (3, 2, 5, 7)
    assert by_name.dtype == np.float32


def test_parameters_and_times_are_broadcast(folder: Path) -> None:
    surrogate = load_surrogate(folder)
    assert surrogate({"west": 300, "load": 0}, 0.5).shape == (2, 5, 7)
    assert surrogate([300.0, 0.0], np.linspace(0, 0.5, 11)).shape == (11, 2, 5, 7)
    grid = surrogate({"west": np.array([[200.0], [300.0]]), "load": 1.0}, np.linspace(0, 0.5, 4))
    assert grid.shape == (2, 4, 2, 5, 7)
    single = surrogate({"west": 300.0, "load": 1.0}, 0.5)
    np.testing.assert_allclose(grid[1, 3], single, rtol=1e-5, atol=1e-4)
    assert surrogate(np.empty((0, 2)), 0.1).shape == (0, 2, 5, 7)


@pytest.mark.parametrize(
    ("parameters", "time", "message"),
    [
        ({"west": 501.0, "load": 0.0}, 0.1, r"west=501 K .*\[100, 500\] K"),
        ({"west": 300.0, "load": [0.0, -2.5]}, 0.1, r"load=-2.5 Pa .*\[-2, 3\] Pa"),
        ({"west": 300.0, "load": 0.0}, 0.75, r"time=0.75 s .*\[0, 0.5\] s"),
        ({"west": float("nan"), "load": 0.0}, 0.1, r"west=nan K"),
    ],
)
def test_outside_of_the_trained_ranges_it_warns(
    folder: Path, parameters: dict[str, float], time: float, message: str
) -> None:
    surrogate = load_surrogate(folder)
    with pytest.warns(UserWarning, match=message):
        surrogate(parameters, time)


def test_outside_of_the_trained_ranges_it_raises_or_keeps_quiet_if_asked(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"west=501 K .*\[100, 500\] K.*extrapolation"):
        load_surrogate(folder, outside="raise")({"west": 501.0, "load": 0.0}, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = load_surrogate(folder, outside="ignore")({"west": 501.0, "load": 0.0}, 0.1)
    with pytest.warns(UserWarning, match="west=501 K"):
        warned = load_surrogate(folder, outside="warn")({"west": 501.0, "load": 0.0}, 0.1)
    assert quiet.tobytes() == warned.tobytes()
    with pytest.raises(ValueError, match=r"outside='shout': choose one of \['warn', 'raise'"):
        load_surrogate(folder, outside="shout")


@pytest.mark.parametrize(
    ("rate", "time", "steps", "message"),
    [
        (2.5, 0.0, 2, r"rate=2.5 1/s .*\[0.5, 2\] 1/s"),
        (1.0, 0.5, SNAPSHOTS, r"time=1.5 s .*\[0, 0.875\] s"),
    ],
)
def test_a_rollout_out_of_the_trained_ranges_is_noticed(
    tmp_path: Path, rate: float, time: float, steps: int, message: str
) -> None:
    study(tmp_path, {"kind": "next"}, steps=2)
    start = trajectory(1.0, 3)[:1]
    with pytest.raises(ValueError, match=message):
        load_surrogate(tmp_path, outside="raise").rollout([rate], start, steps=steps, time=time)
    inside = load_surrogate(tmp_path, outside="raise").rollout([1.0], start, steps=SNAPSHOTS - 1)
    assert np.isfinite(inside).all()


def test_at_the_ends_of_the_ranges_it_does_not_warn(folder: Path) -> None:
    surrogate = load_surrogate(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surrogate({"west": np.float32(500), "load": [np.float32(-2)]}, [0.0, 0.5])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"west": 300.0}, r"missing: \['load'\]"),
        ({"west": 300.0, "load": 0.0, "east": 1.0}, r"unknown: \['east'\]"),
        ([300.0, 0.0, 1.0], r"shape \(3,\), but the last axis must hold 2"),
        (300.0, r"shape \(\), but the last axis must hold 2"),
    ],
)
def test_wrong_parameters_are_refused(folder: Path, parameters: object, message: str) -> None:
    surrogate: Surrogate = load_surrogate(folder)
    with pytest.raises(ValueError, match=message):
        surrogate(parameters, 0.1)  # type: ignore[arg-type]


def test_labels_count_and_not_the_order(folder: Path) -> None:
    surrogate, expected = load_surrogate(folder), load_surrogate(folder)(INSIDE, 0.25)
    frame = pd.DataFrame({"load": INSIDE["load"], "west": INSIDE["west"]})
    array = xr.DataArray(
        frame.to_numpy(), dims=("member", "input"), coords={"input": ["load", "west"]}
    )
    for given in (frame, array, [*frame.itertuples(index=False)]):
        np.testing.assert_array_equal(surrogate(given, 0.25), expected)
    one = surrogate(frame.iloc[1], 0.25)
    np.testing.assert_allclose(one, expected[1], rtol=1e-5, atol=1e-4)
    with pytest.raises(ValueError, match=r"missing: \['west'\], unknown: \['east'\]"):
        surrogate(frame.rename(columns={"west": "east"}), 0.25)


def read_anew(folder: Path, parameters: tuple[Input, ...]) -> Surrogate:
    """A network that was not trained, of other ranges; it raises outside of them."""
    config, problem = TrainerConfig(), replace(linear_problem(), parameters=parameters)
    normalization = Normalization.of(linear_source().moments(), problem)
    torch.manual_seed(3)
    network = build_task(config, problem, normalization, CPU).network(config.model)
    stats = TrainStats(
        rank=0, train_step=9, loss=0.5, learning_rate=1e-3, wait_seconds=0.0,
        first_step_seconds=0.1, validation=None,
    )  # fmt: skip
    export(folder / "model", network, config, problem, normalization, stats)
    return load_surrogate(folder, outside="raise")


CONSTANT = Input(name="load", unit="Pa", low=0.1, high=0.1)


def test_an_end_rounded_to_float32_is_meant_exactly(tmp_path: Path) -> None:
    clock = Input(name="clock", unit="s", low=1.7e9 + 60, high=1.7e9 + 60)
    surrogate = read_anew(tmp_path, (clock, CONSTANT))
    exact = surrogate({"clock": 1.7e9 + 60, "load": 0.1}, 0.25)
    rounded = {"clock": np.float32(1.7e9 + 60), "load": np.float32(0.1)}
    assert float(rounded["clock"]) != 1.7e9 + 60
    np.testing.assert_array_equal(surrogate(rounded, 0.25), exact)
    with pytest.raises(ValueError, match=r"load=0.1001 Pa is outside"):
        surrogate(rounded | {"load": 0.1001}, 0.25)
    with pytest.raises(ValueError, match=r"clock=1.7e\+09 s is outside"):
        surrogate(rounded | {"clock": 1.7e9 + 61}, 0.25)


def test_a_narrow_range_far_from_zero_has_its_values(tmp_path: Path) -> None:
    clock = Input(name="clock", unit="s", low=1.7e9, high=1.7e9 + 60)
    surrogate = read_anew(tmp_path, (clock, CONSTANT))
    near = Input(name="clock", unit="s", low=0.0, high=60.0)
    moved = read_anew(tmp_path / "near", (near, CONSTANT))  # the same weights
    seconds = np.linspace(0.0, 60.0, 25)
    far = surrogate({"clock": 1.7e9 + seconds, "load": 0.1}, 0.25)
    assert len({each.tobytes() for each in far}) == 25
    np.testing.assert_allclose(far, moved({"clock": seconds, "load": 0.1}, 0.25), rtol=1e-5)


def test_a_logarithm_goes_with_the_surrogate(tmp_path: Path) -> None:
    rate = Input(name="rate", unit="1/s", low=2.0, high=1e4, log=True)
    surrogate = read_anew(tmp_path, (rate, CONSTANT))
    ends = np.log([2.0, 1e4])
    card = (tmp_path / "model" / "card.md").read_text()
    middle, half = ends.mean(), np.ptp(ends) / 2
    assert f"| rate, its logarithm | 1/s | 2 | 10000 | {middle:.6g} | {half:.6g} |" in card
    plain = read_anew(tmp_path / "plain", (Input(name="rate", unit="1", low=-1, high=1), CONSTANT))
    places = np.linspace(-1.0, 1.0, 5)
    values = np.exp(middle + places * half).clip(2.0, 1e4)
    found = surrogate({"rate": values, "load": 0.1}, 0.25)
    np.testing.assert_allclose(found, plain({"rate": places, "load": 0.1}, 0.25), rtol=1e-5)


def test_a_tensor_is_answered_with_a_tensor_that_can_be_differentiated(folder: Path) -> None:
    surrogate = load_surrogate(folder, outside="raise")
    parameters = torch.tensor([[120.0, -1.5], [320.0, 0.0], [480.0, 2.5]], requires_grad=True)
    time = torch.tensor(0.25, dtype=torch.float64)
    found = surrogate(parameters, time)
    np.testing.assert_array_equal(found.numpy(force=True), surrogate(INSIDE, 0.25))
    (gradient,) = torch.autograd.grad(found[1, 0].sum(), parameters)
    assert gradient.dtype == torch.float32
    step = np.array([1.0, 0.0])
    above, below = (surrogate([320.0, 0.0] + s * step, 0.25)[0].sum() for s in (1, -1))
    assert gradient[1, 0] == pytest.approx((above - below) / 2, rel=0.1)
    assert (gradient[[0, 2]] == 0).all()
    assert not any(each.requires_grad for each in surrogate.network.parameters())


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # jacfwd calls it
def test_torch_func_maps_over_it_and_differentiates_it(folder: Path) -> None:
    surrogate = load_surrogate(folder, outside="raise")
    many = torch.tensor([[120.0, -1.5], [320.0, 0.0], [500.0, 2.5]], dtype=torch.float64)
    mapped = torch.func.vmap(lambda one: surrogate(one, 0.25))(many)
    torch.testing.assert_close(mapped, surrogate(many, 0.25), rtol=1e-5, atol=1e-4)
    jacobian = torch.func.jacrev(lambda one: surrogate({"west": one[0], "load": one[1]}, 0.25))
    forward = torch.func.jacfwd(lambda one: surrogate(list(one), 0.25))
    assert jacobian(many[0]).shape == (2, *GRID, 2)
    torch.testing.assert_close(jacobian(many[0]), forward(many[0]).double(), rtol=1e-4, atol=1e-6)
    each = torch.func.vmap(jacobian)(many)
    torch.testing.assert_close(each[2], jacobian(many[2]), rtol=1e-4, atol=1e-6)
    assert (each[2] != 0).any()  # at an end of a range, too
    with pytest.raises(ValueError, match=r"west=501 K"):
        torch.func.vmap(lambda one: surrogate(one, 0.25))(many + torch.tensor([1.0, 0.0]))


def test_a_rollout_can_be_differentiated_by_its_start(tmp_path: Path) -> None:
    study(tmp_path, {"kind": "delta"}, steps=2)
    surrogate, start = load_surrogate(tmp_path), trajectory(1.0, 3)[:1]
    history = torch.tensor(start, requires_grad=True)
    found = surrogate.rollout({"rate": torch.tensor(1.0)}, history, steps=3)
    np.testing.assert_array_equal(found.numpy(force=True), surrogate.rollout([1.0], start, steps=3))
    (gradient,) = torch.autograd.grad(found[-1].sum(), history)
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).any()


def test_a_folder_without_a_surrogate_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no card\.json"):
        load_surrogate(tmp_path)


def test_a_format_of_another_version_is_refused(folder: Path) -> None:
    path = folder / "model" / "card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "format": 3}))
    with pytest.raises(ValueError, match="format 3, this version reads 2"):
        load_surrogate(folder)


@pytest.fixture
def operator(tmp_path: Path) -> Surrogate:
    """Temperature from pressure: a seed that nobody gives, and an input field."""
    problem = replace(
        linear_problem(),
        input_fields=("pressure",),
        parameters=(
            Input(name="seed", unit="1", low=0.0, high=1e6, learnt=False),
            Input(name="load", unit="Pa", low=-2.0, high=3.0),
        ),
    )
    normalization = Normalization.of(linear_source().moments(), problem)
    task = build_task(TrainerConfig(), problem, normalization, CPU)
    stats = TrainStats(
        rank=0, train_step=9, loss=0.5, learning_rate=1e-3, wait_seconds=0.0,
        first_step_seconds=0.1, validation=None,
    )  # fmt: skip
    network = task.network(TrainerConfig().model)
    export(tmp_path / "model", network, TrainerConfig(), problem, normalization, stats)
    return load_surrogate(tmp_path)


def test_input_fields_are_given_by_name_and_broadcast(operator: Surrogate) -> None:
    pressure = np.random.default_rng(1).normal(size=(4, *GRID)).astype(np.float32)
    many = operator({"load": 1.0}, 0.25, {"pressure": pressure})
    assert many.shape == (4, 1, *GRID)
    assert len({each.tobytes() for each in many}) == 4
    np.testing.assert_allclose(
        many[2], operator([1.0], 0.25, {"pressure": pressure[2]}), rtol=1e-5, atol=1e-5
    )
    times = operator({"load": 1.0}, [0.1, 0.2, 0.3], {"pressure": pressure[0]})
    assert times.shape == (3, 1, *GRID)


def test_wrong_input_fields_are_refused(operator: Surrogate) -> None:
    with pytest.raises(ValueError, match=r"fields=\[\]: give exactly \['pressure'\]"):
        operator({"load": 1.0}, 0.25)
    with pytest.raises(ValueError, match=r"'pressure' has the shape \(7, 5\).*grid \(5, 7\)"):
        operator({"load": 1.0}, 0.25, {"pressure": np.zeros((7, 5))})
    with pytest.raises(ValueError, match=r"unknown: \['seed'\]"):
        operator({"load": 1.0, "seed": 3.0}, 0.25, {"pressure": np.zeros(GRID)})
