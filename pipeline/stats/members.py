"""The errors of each validation member, as the trainer leaves them in ``validation.jsonl``.

1. Only the newest validation is read; a file that is missing, or of another version, has none.
2. An error that is not finite is null in the file, and infinite here.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import final

Members = dict[int, tuple[float, ...]]


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class MemberTable:
    """Errors of every validation member, one for each predicted field.

    Attributes:
        fields: Names of the predicted fields.
        std: Standard deviation of each field, in its unit: what its errors are divided by.
        one_step: Root mean squared errors of single predictions, by member.
        rollout: The same of rollouts; empty for tasks that do not step.
    """

    fields: tuple[str, ...] = ()
    std: tuple[float, ...] = ()
    one_step: Members
    rollout: Members

    @property
    def shown(self) -> Members:
        """Errors as the surrogate will be used: of rollouts where there are any."""
        return self.rollout or self.one_step

    @classmethod
    def newest(cls, path: Path) -> "MemberTable":
        """Read the last line of a file that can be read."""
        newest = cls(one_step={}, rollout={})
        if not path.is_file():
            return newest
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    newest = cls._read(line)
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue  # a rank that was killed may leave half a line behind
        return newest

    @classmethod
    def _read(cls, line: str) -> "MemberTable":
        tree = json.loads(line)
        one_step, rollout = (
            {
                int(member): tuple(math.inf if one is None else float(one) for one in errors)
                for member, errors in tree[kind].items()
            }
            for kind in ("one_step", "rollout")
        )
        return cls(
            fields=tuple(tree["fields"]), std=tuple(tree["std"]), one_step=one_step, rollout=rollout
        )


def mean_errors(members: Members) -> dict[int, float]:
    """One error a member: the mean over its fields."""
    return {member: sum(errors) / len(errors) for member, errors in members.items()}
