"""Who waits for whom: how far solvers may run ahead of training, and how often a sample is drawn.

The balance is one number (after Cassirer et al., "Reverb: a framework for experience replay",
arXiv:2102.04736):

    surplus = inserted * max_reuse - drawn

At its lower end the trainer waits for the solvers; at its upper end, ``max_surplus``, the solvers
wait for the trainer. ``None`` takes a limit away: without ``max_reuse`` the trainer never waits for
new samples, without ``max_surplus`` the solvers wait only for a slot.

Where ``max_reuse`` draws of a sample are reached in the end, none is overwritten while more than
half of the draws of a full reservoir are due. With ``policy: reservoir`` the lower end is then not
0 either: the draws of a quarter of what is held are kept back until production has ended, so that
neither does the trainer rush through the newest samples, nor do the last ones come too late for
theirs.

1. Before the end of production the surplus never leaves ``[0, max_surplus]``.
2. Until ``watermark`` samples were inserted nothing is drawn.
3. Once production has ended nobody waits for the balance any more, and ``min_reuse`` is reached.
4. A configuration that must deadlock is refused, with the inequality in the message.

Why the inequalities of ``Limits.problems`` are enough
------------------------------------------------------
R ranks draw in lock-step, each from its own reservoir, so all of them have *consumed* the same
number of samples. A member's samples go to the reservoirs in turn, starting at ``member % R``. A
member in progress therefore adds at most 1 to the difference between two reservoirs, and the
finished ones, whose starting points rotate, at most R - 1 together:

    |inserted_a - inserted_b| <= spread = concurrent + R - 1

(Samples on the way to b do not count: b has room, so they arrive. A member that fails for good
may add 1 more, either way: where many may fail, capacity needs as many slots more than is insisted
on here, and ``study/warnings.py`` says so.) A study is stuck when the solvers wait
for room at some reservoir a while the trainer waits for samples at some reservoir b. Rank b then
has no batch left, so its unconsumed samples are few, and those of a at most ``spread`` more:

* waiting for the watermark, b has fewer than ``watermark`` samples, so a has fewer than
  ``watermark + spread``: with ``capacity`` at least that much, a has a free slot after all.
* ``fifo``: b has fewer than ``batch`` unconsumed samples: ``capacity >= batch + spread``.
* ``firo``: b keeps ``watermark`` back: ``capacity >= watermark + batch + spread``.
* ``uniform``: a waits for room only while no seen sample is there to be replaced. A sample drawn
  with replacement is unseen with probability u = unseen / capacity, so each insert (+1 unseen) and
  its ``max_reuse`` = r draws (-r u) balance at u = 1 / r. With r <= 1 the unseen fill everything,
  then both sides wait: refused. With r > 1 follow v = seen + surplus / r, which an insert leaves
  as it is and a draw changes by (0 or 1) - 1/r. Where the surplus is small v = k = capacity
  (1 - 1/r) is its equilibrium, around which it fluctuates as an Ornstein-Uhlenbeck process, rate
  r / capacity, noise r u (1 - u) per insert: standard deviation sqrt(k / (2 r)). Where the surplus
  is large v only grows. Stuck means: all seen samples of a are leased, and a may have leased and
  still have a surplus of less than ``batch + spread * r`` together, so v is below that. Hence
  k - 6 sqrt(k / (2 r)) >= batch + spread * r.
* ``reservoir`` takes the less drawn of two random samples, so that a draw is unseen with
  probability 2 u - u^2: they balance at u = 1 - sqrt(1 - 1 / r) < 1 / r, and more than k are seen.
* the upper limit: b's surplus is below ``batch`` (``watermark * r + batch`` where the watermark is
  awaited or kept back), a's at most ``spread * r`` more: ``max_surplus >= (watermark + spread) * r
  + batch`` leaves a room for one more sample. The limit of overwriting is at least ``(spread +
  1) * r + batch``, and no more is kept back than either limit leaves beyond that.

Senders of the same node are granted slots for samples that are still to come, which nobody else
can fill meanwhile. They give them back when they are idle, but one that is stopped does not, until
its process is ended. So no more are granted than the capacity and the upper limit have to spare:
``grantable`` is the most slots, up to an eighth, without which all inequalities still hold.

The samples of a member of k > 1 mpi_ranks are put together in the slots, so that some of a's slots
may hold a sample that cannot be drawn yet. The mpi_ranks compute each step from their neighbours'
borders of the last one and hand over in step order, so neighbours are at most one sample apart and
all of them k - 1; parts of a sample that has its slot are always accepted. But an mpi_rank that
waits in PETSc for another, which waits for room, sends nothing that it still puts together: up to
``MOST_TOGETHER`` - 1 samples. So in all at most k - 1 + MOST_TOGETHER - 1 samples of a member are
unfinished at a reservoir, beside the 1 above, and everywhere

    spread = concurrent * (k + MOST_TOGETHER - 1) + R - 1
"""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

PolicyName = Literal["fifo", "firo", "reservoir", "uniform"]
ONCE: Final = ("fifo", "firo")  # policies that draw each sample once

UNLIMITED = sys.maxsize
MOST_TOGETHER = 4  # samples in one message of a member with several mpi_ranks
_DEVIATIONS = 6  # chance of a study being stuck below 1e-9 per correlation time
_AHEAD = 1 / 8  # of the slots: granted to senders of the same node for samples that are to come
_KEPT_BACK = 1 / 4  # of the draws of what is held: they are made after later samples have come
_OVERWRITING = 1 / 2  # of the draws of a full reservoir: while more are due nothing is overwritten


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowControl:
    """Decides; it never blocks, counts, or knows who is asking.

    Attributes:
        max_reuse: Mean number of draws per inserted sample that is not exceeded; None: no limit.
        max_surplus: Draws the solvers may be ahead by; None: no limit.
        watermark: Samples needed before the first batch.
        min_reuse: Mean number of draws per inserted sample that is reached after production.
        kept: Samples whose draws are kept back until the end of production.
        overwriting: Draws that may be due while a sample is overwritten; None: no limit.
    """

    max_reuse: float | None
    max_surplus: float | None
    watermark: int
    min_reuse: float = 1.0
    kept: float = 0.0
    overwriting: float | None = None

    def __post_init__(self) -> None:
        if self.watermark < 1:
            raise ValueError(f"watermark={self.watermark} is below 1 sample")
        if self.max_reuse is not None and not 0 < self.max_reuse < math.inf:
            raise ValueError(f"max_reuse={self.max_reuse} must be a positive number, or absent")
        if self.max_surplus is None:
            return
        if self.max_reuse is None:
            raise ValueError(f"max_surplus={self.max_surplus:g} has no meaning without max_reuse")
        if self.max_surplus < self.watermark * self.max_reuse:
            raise ValueError(
                f"max_surplus={self.max_surplus:g} < watermark={self.watermark} * max_reuse="
                f"{self.max_reuse:g} must deadlock: solvers wait before the first batch is allowed"
            )

    def surplus(self, *, inserted: int, drawn: int) -> float:
        """Draws the solvers are ahead by; infinite without ``max_reuse``."""
        return math.inf if self.max_reuse is None else inserted * self.max_reuse - drawn

    def batches(self, *, inserted: int, drawn: int, batch: int) -> int:
        """Whole batches that may be drawn before the surplus would fall below what is kept back."""
        if inserted < self.watermark:
            return 0
        if self.max_reuse is None:
            return UNLIMITED
        kept = min(self.kept, _KEPT_BACK * inserted) * self.max_reuse
        ahead = self.surplus(inserted=inserted, drawn=drawn) - kept
        return max(0, math.floor(ahead / batch))

    def room(self, *, inserted: int, drawn: int) -> int:
        """Samples that may be inserted before the surplus would pass ``max_surplus``."""
        return self._room(self.max_surplus, inserted, drawn)

    def overwritable(self, *, inserted: int, drawn: int) -> int:
        """Samples that may be overwritten before too many draws of what is held would be due."""
        return self._room(self.overwriting, inserted, drawn)

    def _room(self, limit: float | None, inserted: int, drawn: int) -> int:
        if limit is None or self.max_reuse is None:
            return UNLIMITED
        ahead = self.surplus(inserted=inserted, drawn=drawn)
        return max(0, math.floor((limit - ahead) / self.max_reuse))

    def left(self, *, inserted: int, drawn: int) -> int:
        """Draws that are still to be made after production to reach ``min_reuse``."""
        return max(0, math.ceil(inserted * self.min_reuse - drawn))


def in_progress(mpi_ranks: int) -> int:
    """Samples of a member that a reservoir may be ahead of another by, or have unfinished."""
    return 1 if mpi_ranks == 1 else mpi_ranks + MOST_TOGETHER - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """All that decides who may come to wait for whom.

    Attributes:
        policy: How samples are drawn.
        capacity: Slots of one reservoir.
        watermark: Samples one reservoir needs before its rank starts.
        max_reuse: See ``FlowControl``.
        max_surplus: See ``FlowControl``.
        min_reuse: See ``FlowControl``; None: ``max_reuse``, or 1 without it.
        concurrent: Members that run at the same time.
        batch: Samples of one batch of one rank.
        ranks: Reservoirs, one for each rank.
        mpi_ranks: MPI processes of one member.
    """

    policy: PolicyName
    capacity: int
    watermark: int
    max_reuse: float | None
    max_surplus: float | None
    min_reuse: float | None = None
    concurrent: int
    batch: int
    ranks: int
    mpi_ranks: int = 1

    @property
    def spread(self) -> int:
        """Samples that one reservoir may have more than another."""
        return self.concurrent * in_progress(self.mpi_ranks) + self.ranks - 1

    @property
    def reuse_reached(self) -> float:
        """Mean draws per sample when a study has come to its end."""
        return (self.max_reuse or 1.0) if self.min_reuse is None else self.min_reuse

    @property
    def first_batch(self) -> int:
        """Samples before the first batch, which does not repeat any of them."""
        return self.watermark if self.policy in ONCE else max(self.watermark, self.batch)

    def flow_control(self) -> FlowControl:
        """The limits of both sides of one reservoir."""
        kept, overwriting, reuse = 0.0, None, self.max_reuse
        if self.policy not in ONCE and reuse is not None and self.reuse_reached >= reuse:
            waiting = (self.spread + 1) * reuse + self.batch  # see "the upper limit"
            limit = self.max_surplus
            if limit is None:
                limit = overwriting = max(_OVERWRITING * self.capacity * reuse, waiting)
            if self.policy == "reservoir":
                kept = max(0.0, min(_KEPT_BACK * self.capacity, (limit - waiting) / reuse))
        return FlowControl(
            max_reuse=self.max_reuse,
            max_surplus=self.max_surplus,
            watermark=self.first_batch,
            min_reuse=self.reuse_reached,
            kept=kept,
            overwriting=overwriting,
        )

    @property
    def grantable(self) -> int:
        """Slots that may be granted for samples to come."""
        count = int(_AHEAD * self.capacity)
        while count and self._without(count).problems():
            count //= 2
        return count

    def _without(self, slots: int) -> "Limits":
        """The same study with fewer slots, and less of a surplus."""
        surplus = self.max_surplus
        if surplus is not None:
            surplus -= slots * (self.max_reuse or 1.0)
        return replace(self, capacity=self.capacity - slots, max_surplus=surplus)

    @property
    def leasable(self) -> int:
        """Slots that may be under lease at once, so that leased ones leave room for what must come.

        A lease is given back as a whole: until its last batch is trained on, its slots stay taken,
        also those that the trainer is done with. At a reservoir that others wait for, up to
        ``batch + spread`` samples (above those kept back) are not trained on yet; the slots beyond
        may be under lease. A single batch is always possible: once it is done with it holds no
        slot.
        """
        kept, spread = 0.0, self.spread
        if self.policy not in ONCE:
            kept = self.capacity / self.max_reuse if self.max_reuse else 0.0
            spread = math.ceil(spread * (self.max_reuse or 1.0))
        elif self.policy == "firo":
            kept = self.watermark
        return max(self.batch, math.floor(self.capacity - kept - spread - self.batch))

    def problems(self) -> list[str]:
        """Why a study with these settings is refused, one line per reason; empty when it is not."""
        if self.watermark < 1:
            line = f"watermark={self.watermark} < 1: normalisation needs samples. "
            return [line + "Raise it to at least 1."]
        once = self.policy in ONCE
        return [
            *self._capacity_problems(),
            *self._reuse_problems(),
            *(self._once_problems() if once else self._replacing_problems()),
            *self._surplus_problems(),
        ]

    @property
    def _others(self) -> str:
        """The terms of ``spread``."""
        text = f"concurrent={self.concurrent}"
        if self.mpi_ranks > 1:
            text += f" * (mpi_ranks={self.mpi_ranks} + {MOST_TOGETHER - 1})"
        return text + (f" + ranks-1={self.ranks - 1}" if self.ranks > 1 else "")

    @property
    def _awaited(self) -> str:
        """What ``first_batch`` is."""
        if self.first_batch > self.watermark:
            return f"batch={self.batch}"
        return f"watermark={self.watermark}"

    def _capacity_problems(self) -> Iterator[str]:
        capacity, needed = self.capacity, self.first_batch + self.spread
        if capacity < self.first_batch:
            what = "watermark" if self.first_batch == self.watermark else "batch"
            yield (
                f"capacity={capacity} < {self._awaited}: training would never start. "
                f"Lower {what} to at most {max(capacity - self.spread, 1)} or raise capacity."
            )
        elif capacity < needed:
            yield (
                f"capacity={capacity} < {self._awaited} + {self._others}: one rank's reservoir may "
                "be full before another reaches its watermark, and both would wait for ever. "
                f"Raise capacity to at least {needed}."
            )

    def _reuse_problems(self) -> Iterator[str]:
        """A lower limit that contradicts the upper one, or the policy."""
        least, most = self.min_reuse, 1 if self.policy in ONCE else self.max_reuse
        if least is not None and most is not None and least > most:
            limit = f"max_reuse={most:g}, which is not exceeded"
            if self.policy in ONCE:
                limit = f"policy={self.policy}, which draws each sample once"
            yield f"min_reuse={least:g} with {limit}. Lower min_reuse to at most {most:g}."

    def _replacing_problems(self) -> Iterator[str]:
        """Settings under which every held sample ends up unseen while no batch may be drawn."""
        reuse = self.max_reuse
        if reuse is None:
            return
        if reuse <= 1:
            yield (
                f"max_reuse={reuse:g} <= 1 with policy={self.policy} must deadlock: draws are with "
                "replacement, so unseen samples, which are never evicted, would fill the "
                "reservoir. Raise max_reuse, or take policy=firo to draw each sample once."
            )
            return
        seen = self.capacity * (1 - 1 / reuse)
        margin = self.batch + self.spread * reuse
        needed = margin + _DEVIATIONS * math.sqrt(seen / (2 * reuse))
        if seen < needed:
            yield (
                f"capacity={self.capacity} * (1 - 1/max_reuse={reuse:g}) = {seen:.0f} samples to "
                f"replace < {needed:.0f} = batch={self.batch} + max_reuse * ({self._others}) + six "
                "standard deviations: solvers and trainer would come to wait for each other. "
                f"Raise capacity to at least {_sufficient_capacity(reuse, margin)}."
            )

    def _once_problems(self) -> Iterator[str]:
        """Settings that contradict drawing each sample once, or leave no room for it."""
        if self.max_reuse not in (None, 1):
            yield (
                f"max_reuse={self.max_reuse:g} with policy={self.policy}, which draws each sample "
                "once. Leave max_reuse out, or take policy=reservoir."
            )
        kept = self.watermark if self.policy == "firo" else 0
        needed = kept + self.batch + self.spread
        if self.watermark + self.spread <= self.capacity < needed:
            terms = f"watermark={self.watermark} + " if kept else ""
            yield (
                f"capacity={self.capacity} < {terms}batch={self.batch} + {self._others}: a full "
                "reservoir may not hold a batch that its rank is allowed to draw. "
                f"Raise capacity to at least {needed}."
            )

    def _surplus_problems(self) -> Iterator[str]:
        """Upper limits that stop the solvers before every rank has a batch."""
        limit, reuse = self.max_surplus, self.max_reuse
        if limit is None:
            return
        if reuse is None:
            yield (
                f"max_surplus={limit:g} without max_reuse: the surplus is inserted * max_reuse - "
                "drawn. Give max_reuse as well, or leave max_surplus out."
            )
        elif limit < (needed := reuse * (self.first_batch + self.spread) + self.batch):
            yield (
                f"max_surplus={limit:g} < max_reuse={reuse:g} * ({self._awaited} + "
                f"{self._others}) + batch={self.batch}: solvers would wait for a trainer that may "
                f"not draw yet. Raise max_surplus to at least {needed:g}."
            )


def _sufficient_capacity(max_reuse: float, margin: float) -> int:
    """Root of k = margin + d sqrt(k), d = deviations / sqrt(2 max_reuse), as a number of slots."""
    d = _DEVIATIONS / math.sqrt(2 * max_reuse)
    root = (d + math.sqrt(d**2 + 4 * margin)) / 2
    return math.ceil(root**2 / (1 - 1 / max_reuse) + 1e-6)
