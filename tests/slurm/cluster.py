"""A real SLURM on this one machine: installed from Debian, configured in a scratch folder, started and stopped.

Two GPUs are declared by device files that are no GPUs, so that `--gpus` and `CUDA_VISIBLE_DEVICES` are SLURM's own. Jobs of
the partition `urgent` pre-empt those of the other two.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil

PACKAGES = ("slurm-wlm", "slurm-client", "munge")

SLURM_CONF = """\
ClusterName=zmill
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
MpiDefault=none
ReturnToService=2
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/run/slurmctld.pid
SlurmdPidFile={home}/run/slurmd.pid
SlurmctldLogFile={home}/log/slurmctld.log
SlurmdLogFile={home}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=5,sched_min_interval=100000,bf_interval=5
SlurmdParameters=config_overrides
InactiveLimit=0
KillWait=5
MinJobAge=3600
SlurmctldTimeout=60
SlurmdTimeout=60
Waittime=0
DefMemPerCPU=512
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={home}/log/jobcomp.txt
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 Boards=1 SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory={memory} Gres=gpu:h200:2 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
PartitionName=urgent Nodes={host} PriorityTier=10 MaxTime=INFINITE State=UP
"""


def install() -> None:
    """Install SLURM's Debian packages where they are missing (as root)."""
    if all(shutil.which(program) for program in ("slurmctld", "slurmd", "munged", "sbatch")):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], check=True, env=environment
    )


LINKS = Path("/etc/slurm/slurm.conf"), Path("/etc/slurm/gres.conf")
"""Where SLURM's commands look for a cluster.

They are removed at the end: the SLURM plugin asks `scontrol` about a cluster whenever Snakemake starts, on a laptop, too, and would wait
for 10 s each time for one that has ended.
"""


class Cluster:
    """SLURM's two daemons and munge, for as long as the `with` block lasts."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.host = socket.gethostname().split(".")[0]
        self.munge: psutil.Process | None = None

    def __enter__(self) -> Cluster:
        for folder in ("state", "spool", "log", "run", "dev"):
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            device = self.home / "dev" / f"nvidia{number}"
            if not device.exists():
                os.mknod(device, 0o20666, os.makedev(1, 3))
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
        (self.home / "slurm.conf").write_text(
            SLURM_CONF.format(host=self.host, home=self.home, memory=min(20_000, pages * 8 // 10))
        )
        (self.home / "gres.conf").write_text(
            f"NodeName={self.host} Name=gpu Type=h200 File={self.home}/dev/nvidia[0-1]\n"
        )
        for link in LINKS:
            link.parent.mkdir(exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(self.home / link.name)
        self._start_munge()
        self.start_daemon("slurmctld")
        self.start_daemon("slurmd")
        deadline = time.monotonic() + 60
        while self.state() != "idle":
            if time.monotonic() > deadline:
                raise RuntimeError(f"SLURM is not ready after 60 s: node is {self.state()!r}; see {self.home}/log")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["scancel", "--user=root"], timeout=30, check=False)
        self.crash()
        self.stop_daemon("slurmctld")
        for link in LINKS:
            link.unlink()
        if self.munge is not None:
            self.munge.terminate()

    def start_daemon(self, name: str) -> None:
        """Start slurmctld or slurmd."""
        subprocess.run([name, "-c", "-f", str(self.home / "slurm.conf")], check=True, timeout=30)

    def stop_daemon(self, name: str) -> None:
        """Stop slurmctld or slurmd, by its pid file."""
        daemon = self._daemon(name)
        if daemon is not None:
            daemon.terminate()
            psutil.wait_procs([daemon], timeout=10)

    def crash(self) -> None:
        """What a power cut of the node does: slurmd and all that it started end at once."""
        slurmd = self._daemon("slurmd")
        if slurmd is not None:
            processes = [slurmd, *slurmd.children(recursive=True)]
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=10)

    def _daemon(self, name: str) -> psutil.Process | None:
        file = self.home / "run" / f"{name}.pid"
        try:
            process = psutil.Process(int(file.read_text()))
            return process if process.name() == name else None
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None

    def lost(self) -> None:
        """What slurmctld says of a node that did not answer for SlurmdTimeout; it is up again when its slurmd is."""
        command = ["scontrol", "update", f"NodeName={self.host}", "State=DOWN", "Reason=Not responding"]
        subprocess.run(command, check=True, timeout=30)

    def state(self) -> str:
        """The node's state, as sinfo says it."""
        answer = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, timeout=30)
        return (answer.stdout.split() or [""])[0]

    def jobs(self) -> list[dict[str, str]]:
        """What SLURM knows of every job of this cluster, running or ended."""
        answer = subprocess.run(
            ["scontrol", "-o", "-d", "show", "jobs"], capture_output=True, text=True, timeout=30, check=True
        )
        lines = [line for line in answer.stdout.splitlines() if line.startswith("JobId=")]
        return [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines]

    def _start_munge(self) -> None:
        key = Path("/etc/munge/munge.key")
        if not key.exists():
            key.parent.mkdir(exist_ok=True)
            key.write_bytes(os.urandom(1024))
            shutil.chown(key, "munge", "munge")
            key.chmod(0o400)
        run = Path("/run/munge")
        run.mkdir(exist_ok=True)
        shutil.chown(run, "munge", "munge")
        run.chmod(0o755)
        if subprocess.run(["munge", "-n"], capture_output=True, timeout=10).returncode == 0:
            return
        subprocess.run(
            [
                "setpriv",
                "--reuid=munge",
                "--regid=munge",
                "--clear-groups",
                shutil.which("munged") or "/usr/sbin/munged",
            ],
            check=True,
            timeout=30,
        )
        self.munge = psutil.Process(int((run / "munged.pid").read_text()))
