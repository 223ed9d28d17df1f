"""trainers/surrogate/program.py: the surrogate as a program that needs nothing but torch."""

import importlib
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.array_source import GRID, linear_problem
from tests.decay_study import HELD_OUT, SNAPSHOTS, TIME_STEP, rate_of, study, trajectory
from trainers.base import Input
from trainers.config import TrainerConfig
from trainers.surrogate import program
from trainers.surrogate.export import load_surrogate
from trainers.surrogate.program import (
    NotExportable,
    check_onnx,
    complex_layers,
    write_onnx,
    write_program,
)
from trainers.surrogate.surrogate import Surrogate
from trainers.tasks.build import build_task
from trainers.tasks.normalization import Normalization

UNIT = Normalization(
    field_offset=np.zeros(2), field_scale=np.ones(2), input_offset=np.zeros(4),
    input_scale=np.ones(4), step_scale=np.ones(2),
)  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "direct": {"kind": "direct"},
    "next": {"kind": "next", "history": 2, "ahead": 2},
    "derivative": {"kind": "derivative", "integrator": "heun"},
}
# Runs a program with nothing but torch, and says which of our own packages are there.
ALONE = """
import sys, numpy, torch
path, arrays, out = sys.argv[1:]
torch.set_num_threads(1)
program = torch.export.load(path).module()
given = {name: torch.from_numpy(array) for name, array in numpy.load(arrays).items()}
numpy.save(out, program(given.pop("parameters"), given.pop("time"), **given).numpy(force=True))
print(*[name for name in ("ray", "petsc4py", "trainers", "pipeline", "zmq") if name in sys.modules])
"""
ROWS = 5  # not the number of rows that the program was traced with


@pytest.fixture
def one_thread() -> None:
    torch.set_num_threads(1)


def arguments(surrogate: Surrogate, task: str, operator: bool) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(8)
    given = {
        "parameters": rng.uniform(0.5, 2.0, (ROWS, 1)),
        "time": rng.uniform(0.2, 0.5, ROWS),
    }
    if task != "direct":
        history = TASKS[task].get("history", 1)
        given["history"] = rng.uniform(200.0, 350.0, (ROWS, history, 1, *GRID))
    if operator:
        given["fields"] = rng.uniform(200.0, 350.0, (ROWS, 1, *GRID))
    return {name: array.astype(np.float32) for name, array in given.items()}


def expected(surrogate: Surrogate, given: dict[str, np.ndarray]) -> np.ndarray:
    fields = {"initial": given["fields"][:, 0]} if "fields" in given else None
    if "history" not in given:
        return np.asarray(surrogate(given["parameters"], given["time"], fields))
    steps = surrogate.card["trainer"]["task"].get("ahead", 1)
    rollout = surrogate.rollout(
        given["parameters"], given["history"], steps=steps, time=given["time"], fields=fields
    )
    return np.asarray(rollout)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("task", "operator"),
    [("direct", True), ("next", True), ("derivative", False)],
)
def test_a_fresh_process_with_torch_alone_predicts_the_same_to_the_last_bit(
    tmp_path: Path, task: str, operator: bool
) -> None:
    study(tmp_path, TASKS[task], operator=operator)
    surrogate = load_surrogate(tmp_path)
    write_program(surrogate, tmp_path / "surrogate.pt2")
    given = arguments(surrogate, task, operator)
    np.savez(tmp_path / "given.npz", **given)  # type: ignore[arg-type]  # numpy's stub: a keyword
    said = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, "surrogate.pt2", "given.npz", "said.npy"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == []
    prediction = np.load(tmp_path / "said.npy")
    assert prediction.tobytes() == expected(surrogate, given).tobytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("one_thread")
def test_a_rollout_is_made_of_calls_of_the_program(tmp_path: Path) -> None:
    study(tmp_path, {"kind": "next"})
    surrogate = load_surrogate(tmp_path)
    write_program(surrogate, tmp_path / "surrogate.pt2")
    step = torch.export.load(tmp_path / "surrogate.pt2").module()
    start = trajectory(1.25, 40)[:1]
    parameters, history = torch.tensor([[1.25]]), torch.from_numpy(start)[None]
    found, time = [], torch.tensor([0.0])
    for _ in range(SNAPSHOTS - 1):
        history = step(parameters, time, history=history)
        time = time + TIME_STEP
        found.append(history[:, 0])
    rollout = surrogate.rollout([1.25], start, steps=SNAPSHOTS - 1)
    # Between two calls the fields are rounded in physical units, inside a rollout they are not.
    np.testing.assert_allclose(torch.stack(found, 1)[0].numpy(force=True), rollout, rtol=1e-5)


@pytest.mark.parametrize("task", ["direct", "next"])
def test_a_program_takes_any_type_and_wants_no_gradient(tmp_path: Path, task: str) -> None:
    study(tmp_path, TASKS[task], operator=True, steps=2)
    surrogate = load_surrogate(tmp_path)
    write_program(surrogate, tmp_path / "surrogate.pt2")
    program = torch.export.load(tmp_path / "surrogate.pt2").module()
    given = {
        name: torch.from_numpy(array) for name, array in arguments(surrogate, task, True).items()
    }

    def run(parameters: torch.Tensor, time: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = program(parameters, time, **more)
        return said

    assert not run(**given).requires_grad
    double = {name: each.double() for name, each in given.items()}
    assert torch.equal(run(**double), run(**given))
    for name in given:
        mixed = run(**double | {name: given[name]})
        assert torch.equal(mixed, run(**given))
    asked = double["parameters"].requires_grad_()
    (gradient,) = torch.autograd.grad(run(**double).sum(), asked)
    assert (gradient != 0).all()


WRONG = [((3, 2), (3,)), ((3, 1), (2,)), ((3, 1), (4,)), ((2,), ()), ((3, 0), (3,))]


def test_a_program_says_what_it_expects(surrogate: Surrogate, tmp_path: Path) -> None:
    write_program(surrogate, tmp_path / "surrogate.pt2")
    run = torch.export.load(tmp_path / "surrogate.pt2").module()
    expected = r"expected parameters of shape \(batch, 1\), rate, and time of shape \(batch,\)"
    for parameters, time in WRONG:
        with pytest.raises(RuntimeError, match=expected):
            run(torch.ones(parameters), torch.ones(time))


def test_a_program_takes_one_sample_as_a_batch_of_one(tmp_path: Path) -> None:
    load = Input(name="load", unit="Pa", low=-2.0, high=3.0)
    others = (replace(load, name="west"), replace(load, name="east"))
    problem = replace(linear_problem(), parameters=(load, *others))
    task = build_task(TrainerConfig(), problem, UNIT, torch.device("cpu"))
    made = Surrogate(task.network(TrainerConfig().model), task, problem=problem, card={})
    write_program(made, tmp_path / "surrogate.pt2")
    run = torch.export.load(tmp_path / "surrogate.pt2").module()
    one = torch.tensor([0.5, 1.5, -1.0])
    assert torch.equal(run(one, torch.tensor(0.25)), run(one[None], torch.tensor([0.25])))
    assert run(one, torch.tensor([0.25])).shape == (1, 2, *GRID)
    with pytest.raises(RuntimeError, match=r"shape \(batch, 3\), load, west, east"):
        run(one[:2], torch.tensor(0.25))


def test_a_program_may_have_no_parameter_at_all(tmp_path: Path) -> None:
    problem = replace(linear_problem(), parameters=())
    unit = replace(UNIT, input_offset=np.zeros(1), input_scale=np.ones(1))
    task = build_task(TrainerConfig(), problem, unit, torch.device("cpu"))
    made = Surrogate(task.network(TrainerConfig().model), task, problem=problem, card={})
    write_program(made, tmp_path / "surrogate.pt2")
    run = torch.export.load(tmp_path / "surrogate.pt2").module()
    said = run(torch.empty(4, 0), torch.linspace(0, 0.5, 4))
    torch.testing.assert_close(said, made(np.empty((4, 0)), torch.linspace(0, 0.5, 4)))


class Fourier(nn.Module):
    """Doubles the low frequencies, as Fourier layers do."""

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = torch.fft.irfft(2.0 * torch.fft.rfft(fields), n=fields.shape[-1])
        return said


class Mixed(nn.Module):
    """A network with one layer that computes with complex numbers."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner, self.spectral = network, Fourier()

    def forward(self, numbers: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        said: torch.Tensor = self.spectral(self.inner(numbers, fields))
        return said


class Fickle(nn.Module):
    """Computes what depends on a value: nothing that can be written down once for all."""

    def forward(self, numbers: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        if numbers.sum().item() > 0:
            return torch.zeros(len(numbers), 1, *GRID)
        return torch.ones(len(numbers), 1, *GRID)


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> Surrogate:
    out = tmp_path_factory.mktemp("direct")
    study(out, TASKS["direct"], steps=5)
    return load_surrogate(out)


def around(surrogate: Surrogate, network: nn.Module) -> Surrogate:
    return Surrogate(network, surrogate.task, problem=surrogate.problem, card=surrogate.card)


def test_layers_with_complex_numbers_are_named(surrogate: Surrogate) -> None:
    written = program._program(around(surrogate, Mixed(surrogate.network)))
    layers = complex_layers(written)
    assert layers
    assert all(layer.startswith("spectral (aten.") for layer in layers)
    assert any("fft" in layer for layer in layers)
    assert complex_layers(program._program(surrogate)) == []


def test_complex_layers_are_refused_as_onnx_and_exported_to_torch(
    surrogate: Surrogate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "ONNX_PACKAGES", ())
    mixed = around(surrogate, Mixed(surrogate.network))
    with pytest.raises(NotExportable, match=r"model 'mlp': ONNX has no complex .*spectral \(aten"):
        write_onnx(mixed, tmp_path / "surrogate.onnx")
    assert list(tmp_path.iterdir()) == []
    write_program(mixed, tmp_path / "surrogate.pt2")
    assert (tmp_path / "surrogate.pt2").exists()


def test_a_network_that_torch_cannot_follow_is_refused(
    surrogate: Surrogate, tmp_path: Path
) -> None:
    with pytest.raises(NotExportable, match=r"'mlp': torch.export cannot follow it: .*load_surr"):
        write_program(around(surrogate, Fickle()), tmp_path / "surrogate.pt2")
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages_the_error_says_what_to_install(
    surrogate: Surrogate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> None:
        del name

    monkeypatch.setattr(importlib.util, "find_spec", find)
    for call in (check_onnx, lambda: write_onnx(surrogate, tmp_path / "surrogate.onnx")):
        with pytest.raises(NotExportable, match=r"onnx and onnxscript.* pip install .*\[onnx\]"):
            call()


def test_onnx_says_the_same_as_torch(surrogate: Surrogate, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="not installed: headrace[onnx]")
    reference = importlib.import_module("onnx.reference")
    write_onnx(surrogate, tmp_path / "surrogate.onnx")
    session = reference.ReferenceEvaluator(str(tmp_path / "surrogate.onnx"))
    given = arguments(surrogate, "direct", operator=False)
    (said,) = session.run(None, given)
    np.testing.assert_allclose(said, expected(surrogate, given), rtol=1e-4)


@pytest.mark.usefixtures("one_thread")
def test_the_rollout_of_a_fresh_process_is_that_at_the_end_of_the_training(
    tmp_path: Path, project: Path
) -> None:
    """To the last bit, and with neither Ray nor PETSc."""
    study(tmp_path, {"kind": "next"})
    script = f"""
import sys, numpy, torch
torch.set_num_threads(1)
from trainers.surrogate.export import load_surrogate
surrogate = load_surrogate(".", outside="raise")
rates, starts = numpy.load("rates.npy"), numpy.load("starts.npy")
numpy.save("rollouts.npy", numpy.stack([
    surrogate.rollout([rate], start, steps={SNAPSHOTS - 1})
    for rate, start in zip(rates, starts, strict=True)
]))
print(*[name for name in ("ray", "petsc4py", "mpi4py", "zmq", "pipeline") if name in sys.modules])
"""
    members = np.array(HELD_OUT)
    np.save(tmp_path / "rates.npy", np.array([rate_of(m) for m in HELD_OUT]))
    starts = [trajectory(rate_of(member), member)[:1] for member in HELD_OUT]
    np.save(tmp_path / "starts.npy", np.stack(starts))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={"PYTHONPATH": str(project)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
    rollouts = np.load(tmp_path / "rollouts.npy")
    with np.load(tmp_path / "validation" / "rank0.npz") as kept:
        for place, member in enumerate(members):
            at_the_end = kept["prediction"][kept["members"] == member]
            assert at_the_end.shape == (SNAPSHOTS - 1, 1, *GRID)
            assert at_the_end.tobytes() == rollouts[place].tobytes()
