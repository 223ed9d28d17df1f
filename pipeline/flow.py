"""Who waits for whom: how far solvers may run ahead of training, and how often a sample is drawn.

The balance is one number (after Cassirer et al., "Reverb: a framework for experience replay",
arXiv:2102.04736):

    surplus = inserted * max_reuse - drawn

At its lower end, 0, the trainer waits for the solvers; at its upper end, ``max_surplus``, the
solvers wait for the trainer. ``None`` takes a limit away: without ``max_reuse`` the trainer never
waits for new samples, without ``max_surplus`` the solvers wait only for a slot.

1. Before the end of production the surplus never leaves ``[0, max_surplus]``.
2. Until ``watermark`` samples were inserted nothing is drawn.
3. Once production has ended nobody waits for the balance any more.
4. A configuration that must deadlock is refused, with the inequality in the message.

Why the inequalities of ``problems`` are enough
-----------------------------------------------
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
* ``reservoir``: a waits for room only while no seen sample is there to be replaced. A sample drawn
  with replacement is unseen with probability u = unseen / capacity, so each insert (+1 unseen) and
  its ``max_reuse`` = r draws (-r u) balance at u = 1 / r. With r <= 1 the unseen fill everything,
  then both sides wait: refused. With r > 1 follow v = seen + surplus / r, which an insert leaves
  as it is and a draw changes by (0 or 1) - 1/r. Where the surplus is small v = k = capacity
  (1 - 1/r) is its equilibrium, around which it fluctuates as an Ornstein-Uhlenbeck process, rate
  r / capacity, noise r u (1 - u) per insert: standard deviation sqrt(k / (2 r)). Where the surplus
  is large v only grows. Stuck means: all seen samples of a are leased, and a may have leased and
  still have a surplus of less than ``batch + spread * r`` together, so v is below that. Hence
  k - 6 sqrt(k / (2 r)) >= batch + spread * r.
* the upper limit: b's surplus is below ``batch`` (``watermark * r + batch`` where the watermark is
  awaited or kept back), a's at most ``spread * r`` more: ``max_surplus >= (watermark + spread) * r
  + batch`` leaves a room for one more sample.

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
from dataclasses import dataclass
from typing import Literal

PolicyName = Literal["fifo", "firo", "reservoir"]

UNLIMITED = sys.maxsize
MOST_TOGETHER = 4  # samples in one message of a member with several mpi_ranks
_DEVIATIONS = 6  # chance of a study being stuck below 1e-9 per correlation time


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowControl:
    """Decides; it never blocks, counts, or knows who is asking.

    Attributes:
        max_reuse: Mean number of draws per inserted sample that is not exceeded; None: no limit.
        max_surplus: Draws the solvers may be ahead by; None: no limit.
        watermark: Samples needed before the first batch.
    """

    max_reuse: float | None
    max_surplus: float | None
    watermark: int

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
        """Whole batches that may be drawn before the surplus would become negative."""
        if inserted < self.watermark:
            return 0
        if self.max_reuse is None:
            return UNLIMITED
        return max(0, math.floor(self.surplus(inserted=inserted, drawn=drawn) / batch))

    def room(self, *, inserted: int, drawn: int) -> int:
        """Samples that may be inserted before the surplus would pass ``max_surplus``."""
        if self.max_surplus is None or self.max_reuse is None:
            return UNLIMITED
        ahead = self.surplus(inserted=inserted, drawn=drawn)
        return max(0, math.floor((self.max_surplus - ahead) / self.max_reuse))


def in_progress(mpi_ranks: int) -> int:
    """Samples of a member that a reservoir may be ahead of another by, or have unfinished."""
    return 1 if mpi_ranks == 1 else mpi_ranks + MOST_TOGETHER - 1


def leasable(
    *,
    policy: PolicyName,
    capacity: int,
    watermark: int,
    max_reuse: float | None,
    concurrent: int,
    batch: int,
    ranks: int,
    mpi_ranks: int = 1,
) -> int:
    """Slots that may be under lease at once, so that leased ones leave room for what must come.

    A lease is given back as a whole: until its last batch is trained on, its slots stay taken, also
    those that the trainer is done with. At a reservoir that others wait for, up to
    ``batch + spread`` samples (above those kept back) are not trained on yet; the slots beyond may
    be under lease. A single batch is always possible: once it is done with it holds no slot.
    """
    spread = concurrent * in_progress(mpi_ranks) + ranks - 1
    if policy == "reservoir":
        reuse = max_reuse or 1.0
        kept, spread = (capacity / reuse if max_reuse else 0.0), math.ceil(spread * reuse)
    else:
        kept = watermark if policy == "firo" else 0
    return max(batch, math.floor(capacity - kept - spread - batch))


def problems(
    *,
    policy: PolicyName,
    capacity: int,
    watermark: int,
    max_reuse: float | None,
    max_surplus: float | None,
    concurrent: int,
    batch: int,
    ranks: int,
    mpi_ranks: int = 1,
) -> list[str]:
    """Why a study with these settings is refused, one line per reason; empty when it is not.

    Args:
        policy: How samples are drawn.
        capacity: Slots of one reservoir.
        watermark: Samples one reservoir needs before its rank starts.
        max_reuse: See ``FlowControl``.
        max_surplus: See ``FlowControl``.
        concurrent: Members that run at the same time.
        batch: Samples of one batch of one rank.
        ranks: Reservoirs, one for each rank.
        mpi_ranks: Of one member.
    """
    if watermark < 1:
        return [f"watermark={watermark} < 1: normalisation needs samples. Raise it to at least 1."]
    spread = concurrent * in_progress(mpi_ranks) + ranks - 1
    others = f"concurrent={concurrent}"
    if mpi_ranks > 1:
        others += f" * (mpi_ranks={mpi_ranks} + {MOST_TOGETHER - 1})"
    others += f" + ranks-1={ranks - 1}" if ranks > 1 else ""
    found = []
    if capacity < watermark:
        found.append(
            f"capacity={capacity} < watermark={watermark}: training would never start. "
            f"Lower watermark to at most {max(capacity - spread, 1)} or raise capacity."
        )
    elif capacity < watermark + spread:
        found.append(
            f"capacity={capacity} < watermark={watermark} + {others}: one rank's reservoir may be "
            f"full before another reaches its watermark, and both would wait for ever. "
            f"Raise capacity to at least {watermark + spread}."
        )
    if policy == "reservoir":
        found += _reservoir_problems(capacity, max_reuse, spread, others, batch)
    else:
        found += _once_problems(policy, capacity, watermark, max_reuse, spread, others, batch)
    return found + _surplus_problems(max_surplus, max_reuse, watermark, spread, others, batch)


def _reservoir_problems(
    capacity: int, max_reuse: float | None, spread: int, others: str, batch: int
) -> list[str]:
    """Settings under which every held sample ends up unseen while the trainer may not draw."""
    if max_reuse is None:
        return []
    if max_reuse <= 1:
        line = (
            f"max_reuse={max_reuse:g} <= 1 with policy=reservoir must deadlock: draws are with "
            "replacement, so unseen samples, which are never evicted, would fill the reservoir. "
            "Raise max_reuse, or take policy=firo to draw each sample once."
        )
        return [line]
    seen = capacity * (1 - 1 / max_reuse)
    margin = batch + spread * max_reuse
    needed = margin + _DEVIATIONS * math.sqrt(seen / (2 * max_reuse))
    if seen >= needed:
        return []
    enough = _sufficient_capacity(max_reuse, margin)
    line = (
        f"capacity={capacity} * (1 - 1/max_reuse={max_reuse:g}) = {seen:.0f} samples to replace "
        f"< {needed:.0f} = batch={batch} + max_reuse * ({others}) + six standard deviations: "
        "solvers and trainer would come to wait for each other. "
        f"Raise capacity to at least {enough}."
    )
    return [line]


def _sufficient_capacity(max_reuse: float, margin: float) -> int:
    """Root of k = margin + d sqrt(k), d = deviations / sqrt(2 max_reuse), as a number of slots."""
    d = _DEVIATIONS / math.sqrt(2 * max_reuse)
    root = (d + math.sqrt(d**2 + 4 * margin)) / 2
    return math.ceil(root**2 / (1 - 1 / max_reuse) + 1e-6)


def _once_problems(
    policy: PolicyName,
    capacity: int,
    watermark: int,
    max_reuse: float | None,
    spread: int,
    others: str,
    batch: int,
) -> list[str]:
    """Settings that contradict drawing each sample once, or leave no room for it."""
    found = []
    if max_reuse not in (None, 1):
        found.append(
            f"max_reuse={max_reuse:g} with policy={policy}, which draws each sample once. "
            "Leave max_reuse out, or take policy=reservoir."
        )
    kept = watermark if policy == "firo" else 0
    if watermark + spread <= capacity < kept + batch + spread:
        terms = (f"watermark={watermark} + " if kept else "") + f"batch={batch} + {others}"
        found.append(
            f"capacity={capacity} < {terms}: a full reservoir may not hold a batch that its rank "
            f"is allowed to draw. Raise capacity to at least {kept + batch + spread}."
        )
    return found


def _surplus_problems(
    max_surplus: float | None,
    max_reuse: float | None,
    watermark: int,
    spread: int,
    others: str,
    batch: int,
) -> list[str]:
    """Upper limits that stop the solvers before every rank has a batch."""
    if max_surplus is None:
        return []
    if max_reuse is None:
        line = (
            f"max_surplus={max_surplus:g} without max_reuse: the surplus is inserted * max_reuse - "
            "drawn. Give max_reuse as well, or leave max_surplus out."
        )
        return [line]
    needed = max_reuse * (watermark + spread) + batch
    if max_surplus >= needed:
        return []
    line = (
        f"max_surplus={max_surplus:g} < max_reuse={max_reuse:g} * (watermark={watermark} + "
        f"{others}) + batch={batch}: solvers would wait for a trainer that may not draw yet. "
        f"Raise max_surplus to at least {needed:g}."
    )
    return [line]
