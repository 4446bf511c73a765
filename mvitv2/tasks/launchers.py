"""What launchers of several processes say of each: ``torchrun``, all that set what it sets, and Slurm's ``srun``."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Launched:
    """What a launcher says of a process."""

    rank: int
    count: int
    local_rank: int
    """Among those of its machine, by which it takes its GPU."""
    address: str
    """Where they meet, in torch's notation."""


def launched(environment: Mapping[str, str]) -> Launched | None:
    """What the launcher says; ``None`` where there was none.

    Raises:
        ValueError: It says something that cannot be.
    """
    if "RANK" in environment:
        names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        address = "env://"
        rank, count, local = environment["RANK"], environment.get("WORLD_SIZE"), environment.get("LOCAL_RANK", "0")
    elif "SLURM_STEP_NUM_TASKS" in environment:  # of a step of srun; a batch script by itself is one process
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_ID", "SLURM_STEP_NODELIST")
        rank, count = environment.get("SLURM_PROCID"), environment["SLURM_STEP_NUM_TASKS"]
        local, address = environment.get("SLURM_LOCALID", "0"), ""
        if count == "1":
            return None
    else:
        return None
    missing = [name for name in names if name not in environment]
    try:
        found = Launched(int(rank or ""), int(count or ""), int(local), address or slurm_address(environment))
    except ValueError as error:
        raise ValueError(f"the launcher left out or misspelt one of {', '.join(names)}: {error}") from error
    if missing or not 0 <= found.rank < found.count or found.local_rank < 0:
        told = ", ".join(f"{name}={environment.get(name)}" for name in names)
        raise ValueError(f"a process of a group needs {', '.join(names)}, and its rank below their number; got {told}")
    return found


def slurm_address(environment: Mapping[str, str]) -> str:
    """Where the tasks of a Slurm step meet: on its first machine, at a port that follows from job and step."""
    first, bracket, rest = environment.get("SLURM_STEP_NODELIST", "").partition("[")
    host = first + rest.split(",")[0].split("-")[0].rstrip("]") if bracket else first.split(",")[0]
    if "," in first:
        host = first.split(",")[0]  # gpu3,node[01-04]
    host = environment.get("MASTER_ADDR", host)
    number = 7 * int(environment.get("SLURM_JOB_ID", "")) + int(environment.get("SLURM_STEP_ID", "0"))
    return f"tcp://{host}:{environment.get('MASTER_PORT', 20000 + number % 12000)}"
