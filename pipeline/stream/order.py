"""Whose sample is stored next in a store, for a study whose result must not depend on timing.

The order is the plainest: by member, then by sample. It asks nothing of the solvers: with one
worker the samples come in this order anyway, with more of them those of later members wait, up to
their senders' credit, until it is their turn.

1. The order of what is stored does not depend on the order in which it arrives.
2. The member whose turn it is runs, or is the next to be started: members start in this order and
   are never overtaken (``pipeline/control/controller.py``), so its samples come, or its end does.
3. A member that yields fewer samples than a member can is passed only when it is told to be over;
   what comes of it after that is not stored.
4. Who takes the place of a failed member has its turn after all those with lower numbers.
"""

from bisect import insort
from collections.abc import Mapping
from typing import Any, final

import numpy as np
from jaxtyping import Int64


@final
class Turn:
    """The order of one store of one of the reservoirs.

    Args:
        members: All that are stored here or in the same store of another rank, ascending.
        samples: That a completed member yields at most.
        rank: Whose reservoir this is.
        ranks: How many there are.
        whole: Whether a member's samples all go to rank ``member % ranks``, as those of a
            validation member do, or to each in turn.
    """

    def __init__(
        self, *, members: range, samples: int, rank: int, ranks: int, whole: bool = False
    ) -> None:
        self._samples, self._rank, self._ranks = samples, rank, ranks
        self._whole, self._step = whole, 1 if whole else ranks
        self._coming = [member for member in members if not whole or member % ranks == rank]
        self._coming.reverse()  # the next one is at the end
        self._over: set[int] = set()
        self._behind = -1  # all members up to this one are over
        self._short = 0
        self.member: int | None = None  # whose turn it is; None when nobody else is known to come
        self._sample = 0
        self._go_on()

    @property
    def spread(self) -> int:
        """Samples that another reservoir may have fewer of, from the same members.

        One for the member under way, ``ranks - 1`` for all before it, whose first samples went to
        each rank in turn, and one for each of them that ended early.
        """
        return 0 if self._ranks == 1 else self._ranks + self._short

    def is_over(self, member: int) -> bool:
        """Whether nothing of this member is stored any more."""
        return member <= self._behind or member in self._over

    def ready(self, member: int, samples: Int64[np.ndarray, " count"]) -> int:
        """How many of these samples, which are not stored yet, are the next ones, in a row."""
        if member != self.member:
            return 0
        wanted = self._sample + self._step * np.arange(samples.size)
        return int((samples == wanted).cumprod().sum())

    def advance(self, count: int) -> None:
        """The next ``count`` samples have their slots; below 0: the last ones have lost them."""
        self._sample += count * self._step

    def stored(self) -> None:
        """What has a slot is stored: go on to the next member when this was the last sample."""
        if self.member is not None and self._sample >= self._samples:
            self._go_on()

    def pass_member(self, member: int, instead: int | None) -> None:
        """A member is over; ``instead`` will come in its place."""
        if instead is not None and not self._expects(instead):
            insort(self._coming, instead, key=lambda each: -each)
        if member == self.member:
            self._short += 1
            self._go_on()
        elif not self.is_over(member):
            self._over.add(member)
        if self.member is None:
            self._go_on()

    def _expects(self, instead: int) -> bool:
        """Whether this is no news, as after a study was resumed, or does not come here."""
        if self._whole and instead % self._ranks != self._rank:
            return True
        return instead == self.member or instead in self._coming or self.is_over(instead)

    def state(self, *, unfinished: int) -> dict[str, Any]:
        """What ``restore`` goes on from, as plain JSON.

        Args:
            unfinished: So many of the samples that have their slots are not stored, and come again.
        """
        return {
            "coming": list(self._coming),
            "over": sorted(self._over),
            "behind": self._behind,
            "short": self._short,
            "member": self.member,
            "sample": self._sample - unfinished * self._step,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another was."""
        self._coming, self._over = list(state["coming"]), set(state["over"])
        self._behind, self._short = state["behind"], state["short"]
        self.member, self._sample = state["member"], state["sample"]

    def _go_on(self) -> None:
        while True:
            if self.member is not None:
                self._behind = self.member
            if not self._coming:
                self.member = None
                return
            self.member = self._coming.pop()
            self._sample = 0 if self._whole else (self._rank - self.member) % self._ranks
            early = self.member in self._over
            self._over.discard(self.member)
            self._short += early
            if not early and self._sample < self._samples:
                return
