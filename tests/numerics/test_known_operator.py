"""Networks learn an operator that is known: the solution of u - lap u = f on a periodic grid.

f is random and band-limited, so u is known exactly: each Fourier mode of f over 1 + |k|^2. A layer
that is wrong shows as an error that no training takes below 1e-3 on fields not trained on.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from trainers.configs.models import AnyModelConfig, DeepONetConfig, FnoConfig, UnetConfig
from trainers.models.registry import build_model

LIMIT = 1e-3
TRAINED, HELD_OUT = 256, 64


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that figures do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def right_sides_and_solutions(grid: tuple[int, ...], modes: int) -> tuple[Tensor, Tensor]:
    """``f`` and ``u`` with one channel, each scaled to variance one."""
    random = torch.Generator().manual_seed(3)
    axes = tuple(range(1, len(grid) + 1))
    k = torch.stack(
        torch.meshgrid(*(torch.fft.fftfreq(points, 1 / points) for points in grid), indexing="ij")
    )
    low = (k.abs() <= modes).all(0)
    noise = torch.randn(TRAINED + HELD_OUT, *grid, generator=random)
    spectrum = torch.fft.fftn(noise, dim=axes) * low
    f = torch.fft.ifftn(spectrum, dim=axes).real
    u = torch.fft.ifftn(spectrum / (1 + (k**2).sum(0)), dim=axes).real
    return (f / f.std())[:, None], (u / u.std())[:, None]


def relative_l2(network: nn.Module, f: Tensor, u: Tensor) -> float:
    with torch.no_grad():
        wrong = (network(f[:, 0, ..., :0].flatten(1), f) - u).flatten(1).norm(dim=1)
    return float((wrong / u.flatten(1).norm(dim=1)).mean())


def trained(network: nn.Module, f: Tensor, u: Tensor, rounds: int) -> None:
    """L-BFGS on all samples, started anew where its line search ends."""
    numbers = f[:, 0, ..., :0].flatten(1)

    def closure() -> Tensor:
        network.zero_grad()
        loss: Tensor = (network(numbers, f) - u).square().mean() * 1e3
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    for _ in range(rounds):
        torch.optim.LBFGS(
            network.parameters(),
            max_iter=200,
            history_size=100,
            line_search_fn="strong_wolfe",
            tolerance_grad=0.0,
            tolerance_change=0.0,
        ).step(closure)  # type: ignore[no-untyped-call]
        if closure().item() < 0.15 * 1e3 * LIMIT**2:  # room for fields that were not trained on
            return


@pytest.mark.parametrize(
    ("config", "grid", "modes"),
    [
        # An odd leading axis: there the library's own spectral convolution is none.
        (FnoConfig(n_modes=(5, 6), channels=6, layers=1), (9, 8), 2),
        (UnetConfig(channels=16, depth=1, norm="none", activation="silu", periodic=True), (8,), 2),
        (DeepONetConfig(basis=32, branch=(), trunk=(32, 32), activation="tanh"), (16,), 3),
    ],
    ids=lambda each: getattr(each, "kind", ""),
)
def test_the_inverse_of_one_minus_laplace_is_learnt(
    config: AnyModelConfig, grid: tuple[int, ...], modes: int
) -> None:
    f, u = right_sides_and_solutions(grid, modes)
    torch.manual_seed(5)
    network = build_model(config, num_inputs=0, field_shape=(1, *grid), given_channels=1)
    before = relative_l2(network, f[TRAINED:], u[TRAINED:])
    trained(network, f[:TRAINED], u[:TRAINED], rounds=8)
    after = relative_l2(network, f[TRAINED:], u[TRAINED:])
    print(f"{config.kind} on {grid}: relative L2 {before:.2g} -> {after:.2g}")  # noqa: T201
    assert before > 0.5
    assert after < LIMIT, f"{config.kind}: {after:.2g}"
