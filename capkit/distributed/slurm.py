"""SLURM's environment variables of this process, and queries to scontrol."""

import os
import shutil
import subprocess

from capkit.errors import UsageError


def srun_ranks() -> tuple[int, int] | None:
    """(nodes, tasks per node) if srun started this process as one of several tasks, else None.

    A batch script also has SLURM_NTASKS and the like, for the whole job, without being one of its tasks. Only the
    variables of a job step (SLURM_STEP_*) tell the two apart.
    """
    tasks, nodes = (int(os.environ.get(f"SLURM_STEP_NUM_{what}", "1")) for what in ("TASKS", "NODES"))
    if tasks == 1:
        return None
    if tasks % nodes:
        raise UsageError(f"expected the same number of tasks on each node; got {tasks} tasks on {nodes} nodes")
    return nodes, tasks // nodes


def share_main_address() -> None:
    """Set MASTER_ADDR to the address of rank 0's node, if srun started this process and MASTER_ADDR is not set.

    The address is the one by which SLURM itself reaches the node, as in launch/slurm.sbatch. Lightning would use the
    node's name, which other nodes may be unable to resolve; it still does where `scontrol` is missing (in a container).
    Raises UsageError if scontrol fails.
    """
    nodes = os.environ.get("SLURM_STEP_NODELIST")
    if nodes is None or "MASTER_ADDR" in os.environ or shutil.which("scontrol") is None:
        return
    first = _scontrol("show", "hostnames", nodes).split()[0]
    shown = _scontrol("show", "node", first, "--oneliner").split()
    os.environ["MASTER_ADDR"] = next(part for part in shown if part.startswith("NodeAddr=")).partition("=")[2]


def _scontrol(*words: str) -> str:
    done = subprocess.run(["scontrol", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(
            f"expected scontrol {' '.join(words)} to find the node of rank 0, got: {done.stderr.strip()}; "
            "set MASTER_ADDR in the environment to the address of the first node"
        )
    return done.stdout
