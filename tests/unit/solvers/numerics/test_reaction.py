"""The formulas of the Gray-Scott solver: rates by hand, and their derivatives."""

import numpy as np

from solvers.numerics.reaction import Reaction

POINTS = (5, 6)
FEED, KILL = 0.04, 0.06


def made() -> Reaction:
    reaction = Reaction(POINTS, diffusion=(2e-3, 1e-3), spacing=(0.1, 0.2))
    reaction.choose(feed=FEED, kill=KILL)
    return reaction


def periodic(state: np.ndarray) -> np.ndarray:
    """Two neighbours on every side: two rows, and four numbers of a column."""
    return np.pad(state, ((2, 2), (4, 4)), mode="wrap")


def rates(state: np.ndarray) -> np.ndarray:
    out = np.empty_like(state)
    made().rates(periodic(state), out)
    return out


def random_state() -> np.ndarray:
    return np.random.default_rng(5).random((POINTS[0], 2 * POINTS[1]))


def test_the_rates_are_those_of_the_equation() -> None:
    state = random_state()
    u, v = state[:, ::2], state[:, 1::2]

    def diffused(field: np.ndarray) -> np.ndarray:
        weights = {-2: -1 / 12, -1: 4 / 3, 0: -5 / 2, 1: 4 / 3, 2: -1 / 12}
        in_x = sum(w * np.roll(field, shift, 1) for shift, w in weights.items())
        in_y = sum(w * np.roll(field, shift, 0) for shift, w in weights.items())
        return np.asarray(in_x / 0.2**2 + in_y / 0.1**2)

    computed = rates(state)
    np.testing.assert_allclose(
        computed[:, ::2], 2e-3 * diffused(u) - u * v**2 + FEED * (1 - u), atol=1e-12
    )
    np.testing.assert_allclose(
        computed[:, 1::2], 1e-3 * diffused(v) + u * v**2 - (FEED + KILL) * v, atol=1e-12
    )


def test_the_entries_are_the_derivatives_of_the_rates() -> None:
    state, reaction = random_state(), made()
    places = periodic(np.arange(state.size).reshape(state.shape)).ravel()
    jacobian = np.zeros((state.size, state.size))
    for row, (columns, entries) in enumerate(
        zip(reaction.columns(), reaction.entries(state).reshape(state.size, -1), strict=True)
    ):
        np.add.at(jacobian[row], places[columns], entries)
    step = 1e-5
    for unknown in range(state.size):
        change = np.zeros(state.shape)
        change.flat[unknown] = step
        expected = (rates(state + change) - rates(state - change)).ravel() / (2 * step)
        np.testing.assert_allclose(jacobian[:, unknown], expected, atol=1e-8)
