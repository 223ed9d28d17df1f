import pytest

from pipeline.actors.cluster import Node, place_ranks, require_cpus
from pipeline.errors import ConfigError


def node(name: str, *, cpus: int = 8, gpus: int = 0) -> Node:
    return Node(id=name, address=f"10.0.0.{len(name)}", cpus=cpus, gpus=gpus)


def test_ranks_are_spread_evenly_over_the_devices() -> None:
    nodes = [node("a", gpus=2), node("bb", gpus=4), node("ccc")]
    chosen = [n.id for n in place_ranks(nodes, 6, use_gpu=True)]
    assert chosen == ["a", "a", "bb", "bb", "bb", "bb"]


def test_ranks_of_one_node_stand_next_to_each_other() -> None:
    nodes = [node("a", cpus=4), node("bb", cpus=4)]
    assert [n.id for n in place_ranks(nodes, 3, use_gpu=False)] == ["a", "a", "bb"]


def test_more_ranks_than_gpus_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"trainer.ranks=3: the cluster has 2 GPUs on 2 node"):
        place_ranks([node("a", gpus=1), node("bb", gpus=1)], 3, use_gpu=True)


def test_the_mpi_ranks_of_a_member_fit_on_a_node() -> None:
    nodes = [node("a", cpus=3), node("bb", cpus=5)]
    require_cpus(nodes, 5)
    with pytest.raises(ConfigError, match=r"mpi_ranks=6: .* more than 5 CPUs"):
        require_cpus(nodes, 6)
