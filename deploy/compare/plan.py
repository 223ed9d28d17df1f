"""What is compared: which ways to train, on how much, for how long; checked before anything starts.

1. What is wrong with any of the methods is said before the first one is started.
2. All methods of a seed have the same network, weights, validation members and training loop.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

import psutil

from deploy import figures
from deploy.cluster import machine
from pipeline.errors import ConfigError
from pipeline.flow import ONCE, PolicyName
from pipeline.study.config import StudyConfig
from pipeline.study.problems import counted
from trainers.offline.stored import Store

POLICIES: Final = get_args(PolicyName)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """How members are read from a data set.

    Attributes:
        store: What they lie in.
        read: Whether single samples are read, or whole members.
        in_memory: Whether that is done once, before the training.
    """

    store: Store
    read: Literal["sample", "member"]
    in_memory: bool = False


RAM: Final = "ram"
READERS: Final = {
    "npy": Reader(store="npy", read="sample"),
    "npy-member": Reader(store="npy", read="member"),
    "zarr": Reader(store="zarr", read="member"),
    RAM: Reader(store="npy", read="sample", in_memory=True),
}
FOR_SECONDS: Final = "reservoir,firo,fifo,npy,npy-member,zarr,ram"
FOR_MEMBERS: Final = "reservoir,firo,fifo,npy:1,npy:10,npy-member:10,zarr:10,ram:10"
PASSES: Final = 10
NO_END: Final = 200_000  # members of a study that only time ends
ENDLESS_DESIGNS: Final = ("uniform", "halton", "sobol")
_PER_MEMBER: Final = 8192  # bytes of headers, and the last block of a file


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to train.

    Attributes:
        name: As it was asked for.
        passes: Over the files; None: as many as there is time for. Always None online.
        small: On the smaller data set that a disk budget allows.
    """

    name: str
    passes: int | None = None
    small: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """``reservoir``, ``npy``, ``npy:10``, ``zarr@disk:1``.

        Raises:
            ConfigError: There is no such method.
        """
        found = re.fullmatch(r"([a-z-]+?)(@disk)?(?::([1-9]\d*))?", text.strip())
        if found is None or found[1] not in (*POLICIES, *READERS):
            known = ", ".join((*POLICIES, *READERS))
            line = f"--methods: {text!r} is unknown. Known: {known}; of files also NAME:PASSES"
            raise ConfigError([line])
        if found[1] in POLICIES and (found[2] or found[3]):
            raise ConfigError([f"--methods: {text!r}: a stream has no passes and no files"])
        passes = None if found[3] is None else int(found[3])
        return cls(name=found[1], passes=passes, small=found[2] is not None)

    @property
    def online(self) -> bool:
        """Whether simulations run meanwhile."""
        return self.name in POLICIES

    @property
    def label(self) -> str:
        """Its name in tables."""
        passes = "" if self.passes is None else f":{self.passes}"
        return f"{self.name}{'@disk' if self.small else ''}{passes}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is compared.

    Attributes:
        study: The study, with as many members as the data set has.
        methods: Methods, in the order they are run in.
        seconds: Time limit of each; None: all members are run.
        seeds: One comparison for each.
        members_on_disk: Members that the disk budget allows; None without one.
        workers: Reading processes of each rank.
        use_gpu: Whether offline ranks have a GPU each, by the rule of a study.
        keep_data: Whether the data set stays.
    """

    study: StudyConfig
    methods: tuple[Method, ...]
    seconds: float | None
    seeds: tuple[int, ...]
    members_on_disk: int | None
    workers: int
    use_gpu: bool = False
    keep_data: bool = False

    def of_seed(self, seed: int) -> StudyConfig:
        """The study with another seed."""
        return _changed(self.study, seed=seed)

    def online(self, seed: int, policy: str) -> StudyConfig:
        """The study that an online method runs.

        Raises:
            ConfigError: It cannot be run with this policy.
        """
        reservoir: dict[str, Any] = {"policy": policy}
        if policy in ONCE:
            reservoir |= {"max_reuse": None, "max_surplus": None, "min_reuse": None}
        elif self.seconds is not None:
            reservoir |= {"min_reuse": 1.0}  # nobody draws on when the time is over
        ensemble = {} if self.seconds is None else {"members": NO_END}
        try:
            return _changed(self.study, seed=seed, reservoir=reservoir, ensemble=ensemble)
        except ConfigError as error:
            raise ConfigError([f"method {policy}: {line}" for line in error.problems]) from None


def _changed(study: StudyConfig, *, seed: int, **sections: dict[str, Any]) -> StudyConfig:
    tree = study.as_json() | {"seed": seed}
    for name, changes in sections.items():
        tree[name] = tree[name] | changes
    return StudyConfig.model_validate(tree)


def plan(
    study: StudyConfig,
    *,
    methods: str | None,
    seconds: float | None,
    members: int | None,
    seeds: int,
    disk: str | None,
    workers: int | None,
    keep_data: bool,
) -> Plan:
    """What was asked for, when nothing speaks against it.

    Raises:
        ConfigError: With everything that does.
    """
    if members is not None:
        study = _changed(study, seed=study.seed, ensemble={"members": members})
    found = _problems(study, seconds)
    names = methods or (FOR_MEMBERS if seconds is None else FOR_SECONDS)
    chosen = [Method.parse(text) for text in names.split(",")]
    on_disk = None if disk is None else _members_on_disk(study, disk)
    if on_disk is not None and not any(each.small for each in chosen):
        chosen.append(Method(name="npy", small=True))
    if on_disk is None and any(each.small for each in chosen):
        found.append("--methods: @disk needs a budget. Give it with --disk, e.g. --disk 100MB")
    if seconds is None:
        chosen = [
            each
            if each.online or each.passes is not None
            else Method(name=each.name, passes=PASSES, small=each.small)
            for each in chosen
        ]
    if methods is None and _too_much_for_memory(study):
        chosen = [each for each in chosen if each.name != RAM]
    elif any(each.name == RAM for each in chosen):
        found += _too_much_for_memory(study)
    if found:
        raise ConfigError(found)
    made = Plan(
        study=study,
        methods=tuple(chosen),
        seconds=seconds,
        seeds=tuple(range(study.seed, study.seed + seeds)),
        members_on_disk=on_disk,
        workers=study.ensemble.concurrent if workers is None else workers,
        use_gpu=_uses_gpu(study),
        keep_data=keep_data,
    )
    for each in chosen:
        if each.online:
            made.online(study.seed, each.name)
    return made


def _uses_gpu(study: StudyConfig) -> bool:
    if study.trainer.device == "auto":
        return machine.gpus() >= study.trainer.ranks
    return study.trainer.device == "cuda"


def _problems(study: StudyConfig, seconds: float | None) -> list[str]:
    ensemble, found = study.ensemble, []
    if ensemble.validation < study.trainer.ranks:
        found.append(
            f"ensemble.validation={ensemble.validation}: a comparison needs at least one "
            f"validation member for each of {counted(study.trainer.ranks, 'rank')}"
        )
    if seconds is not None and ensemble.design not in ENDLESS_DESIGNS:
        found.append(
            f"ensemble.design={ensemble.design}: with --seconds nobody knows how many members "
            f"there will be. Choose one of {', '.join(ENDLESS_DESIGNS)}"
        )
    if seconds is not None and study.trainer.schedule.kind not in ("constant", "plateau"):
        found.append(
            f"trainer.schedule.kind={study.trainer.schedule.kind}: with --seconds nobody knows how "
            "many train steps there will be. Use --set 'trainer.schedule={kind: constant}', or "
            "plateau"
        )
    return found + machine.problems_of(study)


def _member_bytes(study: StudyConfig) -> int:
    row = study.sample_bytes + 8 * study.sample_layout().num_inputs + 8
    return study.samples_per_member * row + _PER_MEMBER


def _too_much_for_memory(study: StudyConfig) -> list[str]:
    """Why not every rank can hold the data set in memory."""
    ranks, free = study.trainer.ranks, psutil.virtual_memory().available
    needed = study.ensemble.members * _member_bytes(study)
    if ranks * needed <= free:
        return []
    line = (
        f"--methods: ram holds the data set, {figures.size(needed)}, in each of "
        f"{counted(ranks, 'rank')}, but {figures.size(free)} of memory are free. "
        "Leave ram out, or lower --members"
    )
    return [line]


def _members_on_disk(study: StudyConfig, disk: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|k|M|G|T)B?", disk.strip())
    if found is None:
        raise ConfigError([f"--disk={disk}: is no size. Write it as 500MB or 2.5GB"])
    budget = float(found[1]) * 1000 ** " kMGT".index(found[2] or " ")
    each = _member_bytes(study)
    members = min(study.ensemble.members, int(budget // each))
    if members < 1:
        line = (
            f"--disk={disk}: one member takes {figures.size(each)}. Give at least that, or stream "
            "less of each (stream.every, stream.coarsen)"
        )
        raise ConfigError([line])
    return members
