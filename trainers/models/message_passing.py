"""A message-passing neural PDE solver on the points of a grid.

Every point is a node; nodes up to ``neighbours`` cells away along every axis send messages made of
both nodes' features, the difference of the input fields, the way between them and the numbers:

    message[ij] = act(W2 act(receiver[i] + sender[j] + way[ij]))
    h[i] = h[i] + act(norm(update(h[i], mean over j of message[ij], numbers)))

where ``receiver`` and ``sender`` are linear, so that their part of the first layer is computed once
per node and not once per edge. Edges of all samples are one graph: numbered by offset.

Source: Brandstetter, Worrall, Welling (2022), arXiv:2202.03376, section 3.2. Two changes: the
normalisation stands before the residual sum, since otherwise a field's mean over the grid, which
may be all that a parameter changes, would be lost; and time is left to the task.
"""

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.nn import functional

from trainers.configs.models import MessagePassingConfig
from trainers.models.conditioning import ACTIVATIONS, Inputs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of optional parts of the library that are not used here
    from torch_geometric.nn import MessagePassing

Edges = Int64[Tensor, " 2 edge"]


@final
class MessagePassingSolver(nn.Module):
    """Encoder, ``layers`` rounds of messages, decoder."""

    def __init__(
        self,
        config: MessagePassingConfig,
        *,
        num_inputs: int,
        field_shape: tuple[int, ...],
        given_channels: int = 0,
    ) -> None:
        super().__init__()
        channels, *grid = field_shape
        width, activation = config.channels, ACTIVATIONS[config.activation]
        self._field_shape = field_shape
        self.inputs = Inputs(
            "channels", num_inputs=num_inputs, given_channels=given_channels, grid=grid
        )
        self.encoder = nn.Sequential(
            nn.Linear(self.inputs.channels, width), activation(), nn.Linear(width, width)
        )
        self.rounds = nn.ModuleList(
            _Round(config, numbers=num_inputs, given=given_channels, axes=len(grid))
            for _ in range(config.layers)
        )
        self.decoder = nn.Sequential(
            nn.Linear(width, width), activation(), nn.Linear(width, channels)
        )
        edges, ways = grid_edges(grid, config.neighbours, periodic=config.periodic)
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("ways", ways, persistent=False)

    def forward(
        self,
        numbers: Float32[Tensor, " batch numbers"],
        given: Float32[Tensor, " batch given *grid"],
    ) -> Float32[Tensor, " batch channel *grid"]:
        """Normalised inputs to normalised fields."""
        batch, (channels, *grid) = numbers.shape[0], self._field_shape
        everything: Tensor = self.inputs(numbers, given)
        points = everything[0, 0].numel()
        edges = _repeated(self.get_buffer("edges"), batch, points)
        fields = given.flatten(2).mT.flatten(0, 1)
        features: Tensor = self.encoder(everything.flatten(2).mT).flatten(0, 1)
        for each in self.rounds:
            features = each(features, edges, numbers, fields, self.get_buffer("ways"))
        flat: Tensor = self.decoder(features)
        return flat.view(batch, points, channels).mT.reshape(batch, channels, *grid)


class _Round(MessagePassing):  # type: ignore[misc]
    """One message along each edge, and one update of each node."""

    def __init__(
        self, config: MessagePassingConfig, *, numbers: int, given: int, axes: int
    ) -> None:
        super().__init__(aggr="mean")
        width = config.channels
        self._instance = config.norm == "instance"
        self._given = given
        self.receiver = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.difference = nn.Linear(given, width, bias=False) if given else None
        self.way = nn.Linear(axes, width, bias=False)
        self.known = nn.Linear(numbers, 2 * width, bias=False) if numbers else None
        self.second = nn.Linear(width, width)
        self.update_first = nn.Linear(2 * width, width)
        self.update_second = nn.Linear(width, width)
        self.activation = ACTIVATIONS[config.activation]()
        self.norm = nn.Identity() if self._instance else nn.LayerNorm(width)

    def forward(
        self, features: Tensor, edges: Tensor, numbers: Tensor, fields: Tensor, ways: Tensor
    ) -> Tensor:
        """Features of all nodes of all samples after this round."""
        batch = numbers.shape[0]
        receiver, sender = self.receiver(features), self.sender(features)
        if self.difference is not None:
            change = self.difference(fields)
            receiver, sender = receiver + change, sender - change
        for_messages, for_update = self._known(numbers, len(features) // batch)
        messages: Tensor = self.propagate(
            edges,
            receiver=receiver + for_messages,
            sender=sender,
            way=self.way(ways).repeat(batch, 1),
        )
        hidden = self.update_first(torch.cat([features, messages], dim=1)) + for_update
        update: Tensor = self.update_second(self.activation(hidden))
        result: Tensor = features + self.activation(self._normalised(update, batch))
        return result

    def propagate(self, edge_index: Tensor, **values: Tensor) -> Tensor:
        """The library's own; named here, it writes no generated module to the temporary folder."""
        messages: Tensor = super().propagate(edge_index, **values)
        return messages

    def message(self, receiver_i: Tensor, sender_j: Tensor, way: Tensor) -> Tensor:
        """Along each edge, from sender to receiver."""
        message: Tensor = self.second(self.activation(receiver_i + sender_j + way))
        activated: Tensor = self.activation(message)
        return activated

    def _known(self, numbers: Tensor, points: int) -> tuple[Tensor | float, Tensor | float]:
        """What the numbers add at each node to the first layers of message and update."""
        if self.known is None:
            return 0.0, 0.0
        parts = self.known(numbers).repeat_interleave(points, dim=0).chunk(2, dim=1)
        return parts[0], parts[1]

    def _normalised(self, update: Tensor, batch: int) -> Tensor:
        if not self._instance:
            normalised: Tensor = self.norm(update)
            return normalised
        nodes = update.view(batch, -1, update.shape[1]).mT
        return functional.instance_norm(nodes).mT.flatten(0, 1)


def grid_edges(
    grid: Sequence[int], neighbours: int, *, periodic: bool
) -> tuple[Edges, Float32[Tensor, " edge axis"]]:
    """All edges between points of a grid that are close to each other.

    Args:
        grid: Points per axis.
        neighbours: How many cells away along each axis; diagonals included.
        periodic: Whether the last point of an axis is the first one's neighbour.

    Returns:
        Sender and receiver of each edge, and the way from one to the other in units of
        ``neighbours`` cells.
    """
    numbering = torch.arange(math.prod(grid)).view(*grid)
    # Farther than the grid is long there is nobody; on an axis of one point, nobody else.
    reach = [range(-min(neighbours, n - 1), min(neighbours, n - 1) + 1) for n in grid]
    edges, ways = [], []
    for way in itertools.product(*reach):
        if not any(way):
            continue
        senders = numbering.roll([-step for step in way], dims=list(range(len(grid))))
        inside = tuple(
            slice(None) if periodic else slice(max(0, -step), points - max(0, step))
            for step, points in zip(way, grid, strict=True)
        )
        pair = torch.stack([senders[inside].flatten(), numbering[inside].flatten()])
        edges.append(pair)
        ways.append(torch.tensor(way, dtype=torch.float32).expand(pair.shape[1], -1) / neighbours)
    return torch.cat(edges, dim=1), torch.cat(ways)


def _repeated(edges: Edges, batch: int, points: int) -> Int64[Tensor, " 2 all_edges"]:
    """The same edges in each of ``batch`` copies of the graph, numbered one after the other."""
    offsets = torch.arange(batch, device=edges.device) * points
    return (edges[:, None, :] + offsets[:, None]).flatten(1)
