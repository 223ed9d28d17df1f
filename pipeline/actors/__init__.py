"""Ray shells around plain objects: they delegate and decide nothing."""

from typing import Final

# What processes call themselves in a list of processes, after Ray's actors and their methods.
PROCESS_TITLES: Final = {
    "solver": "ray::_SolverHost.run",
    "reservoir": "ray::_ReservoirHost",
    "trainer": "ray::_RankHost",
}
