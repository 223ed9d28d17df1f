"""What a program that we start sees of our environment."""

import os
import sys
from pathlib import Path

import pytest

from solvers.program.leashed import clean_environment

OURS = {
    "HOME": "/home/ada", "OMP_NUM_THREADS": "2", "OMPI_MCA_btl": "self", "PATH": "/usr/bin",
    "PETSC_OPTIONS": "-log_view",
}  # fmt: skip
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NODELIST": "a,b", "PBS_NODEFILE": "/n", "LSB_HOSTS": "a b"}
LAUNCHED = {
    "RAY_AUTH_TOKEN": "x", "RAY_ADDRESS": "a:1", "PMI_RANK": "0", "PMIX_RANK": "0",
    "HYDRA_LAUNCHER": "slurm", "OMPI_COMM_WORLD_RANK": "0",
}  # fmt: skip


@pytest.mark.parametrize("starts", ["", "mpiexec", "./flow", "/opt/mpi/bin/mpirun", "./srun_like"])
def test_a_program_sees_neither_our_mpi_nor_our_ray_nor_the_batch_job(starts: str) -> None:
    seen = clean_environment(OURS | BATCH | LAUNCHED, starts=starts)
    own = str(Path(sys.executable).parent)
    assert seen == OURS | {"PATH": os.pathsep.join(["/usr/bin", own])}


@pytest.mark.parametrize("starts", ["srun", "/usr/bin/srun", "jsrun", "flux"])
def test_the_launcher_of_a_batch_system_sees_its_job(starts: str) -> None:
    seen = clean_environment(OURS | BATCH | LAUNCHED, starts=starts)
    assert seen.keys() == OURS.keys() | BATCH.keys()
