"""What SLURM says about this process, and what it is asked for."""

import os
import shutil
import subprocess

from capkit.errors import UsageError


def srun_ranks() -> tuple[int, int] | None:
    """(nodes, tasks of each) where srun started this process as one of several; None elsewhere.

    A batch script has SLURM's variables of the whole job without being one of its tasks: only a step's count.
    """
    tasks, nodes = (int(os.environ.get(f"SLURM_STEP_NUM_{what}", "1")) for what in ("TASKS", "NODES"))
    if tasks == 1:
        return None
    if tasks % nodes:
        raise UsageError(f"each node wants as many tasks as the others; got {tasks} tasks on {nodes} nodes")
    return nodes, tasks // nodes


def share_main_address() -> None:
    """Puts into MASTER_ADDR, where srun started this process and none is given, the address of rank 0's node.

    It is the one by which SLURM itself reaches the node, as in launch/slurm.sbatch. Lightning would take the node's
    name, which other nodes need not be able to look up; this is left to it where there is no `scontrol` (a container).
    Raises UsageError where SLURM does not answer.
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
            f"scontrol {' '.join(words)} was to say where rank 0 is; it said: {done.stderr.strip()}; "
            "give the address of the first node as MASTER_ADDR in the environment"
        )
    return done.stdout
