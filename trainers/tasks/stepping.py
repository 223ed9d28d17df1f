"""Tasks that go from snapshots to later snapshots: next, delta, derivative, bundle.

    next        network = the next snapshots, normalised
    delta       network = (next snapshots - last one) / change
    bundle      the same for several snapshots at once, with the pushforward trick: an example
                starts from up to ``pushforward`` predictions, made without gradients, so that the
                network learns to go on from its own errors (arXiv:2202.03376, section 3.2)
    derivative  network = du/dt * time step / change, integrated in time (arXiv:2412.13074); it is
                trained on the difference to the next snapshot for Euler, which integrates that
                exactly, and on the central difference for Heun and RK4, which need du/dt itself

``change`` is the root mean square change of a channel from one snapshot to the next. Fields go into
the network as channels: the snapshots of the history, oldest first, then the input fields. Numbers
are the parameters and the time of the newest snapshot.

1. A step of a rollout is what ``one_step`` does, from what the step before predicted.
2. Where a sample has more snapshots than an example takes, each sample's part is drawn afresh.
"""

from collections.abc import Callable
from typing import Final, final

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor, nn

from trainers.base import Problem
from trainers.configs.models import AnyModelConfig
from trainers.configs.tasks import BundleConfig, DeltaConfig, DerivativeConfig, NextConfig
from trainers.models.registry import build_model
from trainers.tasks.direct import Compared
from trainers.tasks.losses import Loss
from trainers.tasks.scaling import Scaling

StepConfig = NextConfig | DeltaConfig | DerivativeConfig | BundleConfig
# Normalised snapshots, as (batch, snapshot, channel, *grid).
Snapshots = Float32[Tensor, " batch snapshot channel *grid"]
_Rate = Callable[[Snapshots, Float64[Tensor, " batch"]], Snapshots]


@final
class Stepping:
    """One of the four, for one problem."""

    def __init__(
        self,
        config: StepConfig,
        loss: Loss,
        problem: Problem,
        scaling: Scaling,
        device: torch.device,
    ) -> None:
        self.problem: Final = problem
        self.device: Final = device
        self.history: Final = config.history
        self.ahead: Final = 1 if isinstance(config, DerivativeConfig) else config.ahead
        self._config, self._loss, self._scaling = config, loss, scaling
        self._predicted, self._parameters = problem.num_predicted, len(problem.parameters)

    def network(self, config: AnyModelConfig) -> nn.Module:
        """A fresh network of the sizes that this task needs."""
        channels, *grid = self.problem.field_shape
        return build_model(
            config,
            num_inputs=len(self.problem.learnt) + 1,
            field_shape=(self.ahead * channels, *grid),
            given_channels=self.history * channels + len(self.problem.input_fields),
        )

    def losses(
        self,
        network: nn.Module,
        inputs: Float64[Tensor, " batch sample_inputs"],
        fields: Float[Tensor, " batch window channel *grid"],
    ) -> Float32[Tensor, " batch"]:
        """Loss of each sample, in the network's own units."""
        parameters, times, fields = self._example(inputs, fields)
        snapshots = self._scaling.normalise_predicted(fields[:, :, : self._predicted])
        given = self._scaling.normalise_given(fields[:, 0, self._predicted :])
        if isinstance(self._config, DerivativeConfig):
            return self._derivative_losses(network, parameters, times, snapshots, given)
        pushes = self._pushes()
        past = snapshots[:, : self.history]
        for push in range(pushes):
            at = self.history + push * self.ahead
            with torch.no_grad():
                future = self._advance(network, parameters, times[:, at - 1], past, given)
            past = torch.cat([past, future], dim=1)[:, -self.history :]
        start = self.history + pushes * self.ahead
        said = self._call(network, parameters, times[:, start - 1], past, given)
        target = self._encode(past, snapshots[:, start : start + self.ahead])
        return self._mean(said, target)

    def one_step(
        self,
        network: nn.Module,
        inputs: Float64[Tensor, " batch sample_inputs"],
        fields: Float[Tensor, " batch window channel *grid"],
    ) -> Compared:
        """The snapshots after the first ``history`` of each sample."""
        start, end = self.history, self.history + self.ahead
        prediction = self.rollout(
            network,
            inputs[:, : self._parameters],
            inputs[:, self._parameters + start - 1],
            fields[:, :start, : self._predicted],
            fields[:, 0, self._predicted :],
            steps=self.ahead,
        )
        return Compared(prediction, fields[:, start:end, : self._predicted].float())

    def rollout(
        self,
        network: nn.Module,
        parameters: Float64[Tensor, " batch parameters"],
        time: Float64[Tensor, " batch"],
        history: Float[Tensor, " batch history channel *grid"],
        given: Float[Tensor, " batch given *grid"],
        *,
        steps: int,
    ) -> Float32[Tensor, " batch steps channel *grid"]:
        """Predict ``steps`` snapshots, each from those before it, in the fields' units.

        Args:
            network: One that ``network`` made.
            parameters: Parameters of each trajectory, in their units.
            time: Time of the last snapshot of the history, in seconds.
            history: The first snapshots, in the fields' units.
            given: Input fields, in their units.
            steps: Snapshots to predict.
        """
        past = self._scaling.normalise_predicted(history)
        around = self._scaling.normalise_given(given)
        found: list[Tensor] = []
        while len(found) * self.ahead < steps:
            future = self._advance(network, parameters, time, past, around)
            past = torch.cat([past, future], dim=1)[:, -self.history :]
            time = time + self.ahead * self.problem.time_step
            found.append(future)
        return self._scaling.to_physical(torch.cat(found, dim=1)[:, :steps])

    def _example(
        self,
        inputs: Float64[Tensor, " batch sample_inputs"],
        fields: Float[Tensor, " batch window channel *grid"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Parameters, times and fields of what is trained on; a random part of a longer window."""
        parameters, times = inputs[:, : self._parameters], inputs[:, self._parameters :]
        spare = fields.shape[1] - self._config.needed
        if spare == 0:
            return parameters, times, fields
        first = torch.randint(spare + 1, (len(fields), 1), device=fields.device)
        rows: Int64[Tensor, " batch needed"] = first + torch.arange(
            self._config.needed, device=fields.device
        )
        which = torch.arange(len(fields), device=fields.device)[:, None]
        return parameters, times.gather(1, rows), fields[which, rows]

    def _pushes(self) -> int:
        """How many predictions this batch starts from; the same for all its samples."""
        if not isinstance(self._config, BundleConfig) or self._config.pushforward == 0:
            return 0
        return int(torch.randint(self._config.pushforward + 1, ()))

    def _call(
        self, network: nn.Module, parameters: Tensor, time: Tensor, past: Tensor, given: Tensor
    ) -> Tensor:
        """What the network says: ``(batch, ahead, channel, *grid)``."""
        numbers = self._scaling.normalise_inputs(torch.cat([parameters, time[:, None]], dim=1))
        said: Tensor = network(numbers, torch.cat([past.flatten(1, 2), given], dim=1))
        return said.view(said.shape[0], self.ahead, self._predicted, *said.shape[2:])

    def _encode(self, past: Tensor, future: Tensor) -> Tensor:
        """What the network should have said."""
        if isinstance(self._config, NextConfig):
            return future
        return (future - past[:, -1:]) / self._scaling.change

    def _advance(
        self, network: nn.Module, parameters: Tensor, time: Tensor, past: Tensor, given: Tensor
    ) -> Tensor:
        """The next ``ahead`` snapshots, normalised."""
        if isinstance(self._config, DerivativeConfig):
            return self._integrate(
                lambda state, at: self._call(network, parameters, at, state, given), past, time
            )
        said = self._call(network, parameters, time, past, given)
        if isinstance(self._config, NextConfig):
            return said
        return past[:, -1:] + said * self._scaling.change

    def _derivative_losses(
        self,
        network: nn.Module,
        parameters: Tensor,
        times: Tensor,
        snapshots: Tensor,
        given: Tensor,
    ) -> Tensor:
        forward = self._config.needed == 2
        at = 0 if forward else 1
        elapsed = (times[:, -1] - times[:, 0]).float()
        shape = (-1, *[1] * (snapshots.dim() - 1))
        rate = (snapshots[:, -1:] - snapshots[:, :1]) / elapsed.view(shape)
        target = rate * self.problem.time_step / self._scaling.change
        said = self._call(network, parameters, times[:, at], snapshots[:, at : at + 1], given)
        return self._mean(said, target)

    def _integrate(self, rate: _Rate, state: Tensor, time: Tensor) -> Tensor:
        """One step; ``rate`` is in changes a step."""
        change, step = self._scaling.change, self.problem.time_step
        first = rate(state, time) * change
        assert isinstance(self._config, DerivativeConfig)
        if self._config.integrator == "euler":
            return state + first
        if self._config.integrator == "heun":
            return state + (first + rate(state + first, time + step) * change) / 2
        second = rate(state + first / 2, time + step / 2) * change
        third = rate(state + second / 2, time + step / 2) * change
        fourth = rate(state + third, time + step) * change
        return state + (first + 2 * second + 2 * third + fourth) / 6

    def _mean(self, said: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample: the mean over its predicted snapshots."""
        losses = self._loss(said.flatten(0, 1), target.flatten(0, 1))
        return losses.view(-1, said.shape[1]).mean(1)
