"""A real Slurm with accounting on one node, this machine, in one directory: no systemd, nothing below /etc.

    python tests/engines/start_slurm.py DIRECTORY

starts munged, MariaDB, slurmdbd, slurmctld and slurmd from Debian's packages, prints the variable that Slurm's
commands need, and stops all of it on Ctrl-C or SIGTERM. Needs root. Tests use :class:`Slurm`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

PACKAGES = (
    "munge",
    "mariadb-server",
    "slurmctld",
    "slurmd",
    "slurmdbd",
    "slurm-client",
    "slurm-wlm-mysql-plugin",
)
PROGRAMS = (
    "munged",
    "mariadbd",
    "mariadb-install-db",
    "slurmdbd",
    "slurmctld",
    "slurmd",
    "sbatch",
    "sacctmgr",
)
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PATIENCE_S = 90.0

SLURM_CONF = """
ClusterName=regbench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job put back into the queue waits until its credential has expired: 120 s by default.
AuthInfo=socket={directory}/munge.socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,default_queue_depth=100
PropagateResourceLimits=NONE
# More CPUs than there may be: the tests' jobs mostly sleep.
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=8
MessageTimeout=5
InactiveLimit=0
KillWait=6
MinJobAge=60
Waittime=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePass={directory}/munge.socket
AccountingStoragePort={accounting}
DefMemPerCPU=1000
NodeName={host} NodeAddr=127.0.0.1 Port={node} CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=normal Nodes={host} Default=YES MaxTime=60 State=UP OverSubscribe=NO PriorityTier=1
PartitionName=urgent Nodes={host} Default=NO MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""

SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={accounting}
SlurmUser=root
LogFile={directory}/slurmdbd.log
PidFile={directory}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StoragePort={database}
StorageUser=root
StorageLoc=slurm_acct_db
"""


class CannotStart(Exception):
    """Why this machine cannot run it, as a sentence."""


def missing() -> str:
    """What keeps Slurm from being started here; empty: nothing."""
    if os.name != "posix" or os.geteuid() != 0:
        return "Slurm's daemons are started as root only"
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    return f"not installed: {', '.join(absent)}; apt-get install {' '.join(PACKAGES)}" if absent else ""


class Slurm:
    """The daemons. ``start`` raises :class:`CannotStart`; ``stop`` may be called at any time, also twice."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment: Mapping[str, str] = {"SLURM_CONF": str(directory / "slurm.conf"), "PATH": PATH}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        if why := missing():
            raise CannotStart(why)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)  # munged refuses to put its socket where others may not go
        self._configure()
        try:
            self._start_munge()
            self._start_database()
            self._start("slurmdbd", "-D")
            self._wait("slurmdbd", lambda: self._ask("sacctmgr", "-i", "add", "cluster", "regbench"))
            self._start("slurmctld", "-D", "-i")
            self._wait("slurmctld", lambda: "UP" in self._ask("scontrol", "ping"))
            self.start_node()
        except BaseException:
            self.stop()
            raise

    def start_node(self) -> None:
        """Start slurmd, and wait until the node takes jobs."""
        self._start("slurmd", "-D", "-N", host())
        self._wait(
            "slurmd", lambda: self._ask("sinfo", "-h", "-o", "%T").strip() in ("idle", "mixed", "allocated")
        )

    def kill_node(self) -> None:
        """``kill -9`` slurmd, as if the node were gone; what its jobs had started goes on running."""
        node = self._running.pop("slurmd")
        node.kill()
        node.wait()

    @contextmanager
    def frozen_controller(self) -> Iterator[None]:
        """Nobody answers Slurm's commands inside the block."""
        self._running["slurmctld"].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._running["slurmctld"].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if "slurmctld" in self._running:
            with suppress(subprocess.SubprocessError, CannotStart):
                self._ask("scancel", "--user=root")
                self._wait("its jobs' end", lambda: not self._ask("squeue", "-h"), seconds=20)
        for name in ("slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"):
            process = self._running.pop(name, None)
            if process is None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _configure(self) -> None:
        for name in ("state", "spool", "database"):
            (self.directory / name).mkdir(exist_ok=True)
        controller, node, accounting, database = _free_ports(4)
        values = {
            "directory": self.directory,
            "host": host(),
            "controller": controller,
            "node": node,
            "accounting": accounting,
            "database": database,
        }
        (self.directory / "slurm.conf").write_text(SLURM_CONF.format_map(values))
        (self.directory / "cgroup.conf").touch()  # or the system's own would count
        accounting_file = self.directory / "slurmdbd.conf"
        accounting_file.write_text(SLURMDBD_CONF.format_map(values))
        accounting_file.chmod(0o600)

    def _start_munge(self) -> None:
        key = self.directory / "munge.key"
        if not key.exists():
            key.touch(0o600)
            key.write_bytes(os.urandom(1024))
        files = {
            "key-file": key,
            "socket": self.directory / "munge.socket",
            "pid-file": self.directory / "munge.pid",
        }
        files |= {"log-file": self.directory / "munge.log", "seed-file": self.directory / "munge.seed"}
        self._start(
            "munged", "--foreground", "--force", *(f"--{name}={file}" for name, file in files.items())
        )
        self._wait("munged", (self.directory / "munge.socket").exists)

    def _start_database(self) -> None:
        data, mysql_socket = self.directory / "database", self.directory / "mysql.socket"
        common = ["--no-defaults", "--user=root", f"--datadir={data}"]
        if not (data / "mysql").exists():
            self._ask(
                "mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"
            )
        # Enough for some hundred jobs; the defaults are made for a server of its own.
        small = [
            "--innodb-buffer-pool-size=32M",
            "--innodb-log-file-size=16M",
            "--innodb-lock-wait-timeout=900",
        ]
        files = [f"--socket={mysql_socket}", f"--pid-file={self.directory / 'mysql.pid'}"]
        self._start("mariadbd", *common, *small, *files, "--skip-networking", "--skip-grant-tables")
        self._wait("mariadbd", mysql_socket.exists)

    def _start(self, name: str, *arguments: str) -> None:
        with (self.directory / f"{name}.out").open("ab") as output:
            self._running[name] = subprocess.Popen(
                [name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is for the script, which stops them one after the other
            )

    def _wait(self, name: str, ready: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            process = self._running.get(name)
            if process is not None and process.poll() is not None:
                break
            with suppress(subprocess.SubprocessError):
                if ready():
                    return
            time.sleep(0.2)
        raise CannotStart(f"{name} did not come up; see {self.directory}:\n{self._last_words(name)}")

    def _last_words(self, name: str) -> str:
        files = [self.directory / f"{name}.{ending}" for ending in ("out", "log")]
        return "\n".join(file.read_text(errors="replace")[-1500:] for file in files if file.exists())

    def _ask(self, *command: str) -> str:
        return subprocess.run(
            command, env=self._environment(), capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "MYSQL_UNIX_PORT": str(self.directory / "mysql.socket")}


def host() -> str:
    return socket.gethostname().split(".")[0]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> int:
    slurm = Slurm(Path(sys.argv[1]).absolute())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        slurm.start()
        print(f"export SLURM_CONF={slurm.environment['SLURM_CONF']}", flush=True)
        while True:
            signal.pause()
    except CannotStart as why:
        print(f"Slurm cannot be started here: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        slurm.stop()


if __name__ == "__main__":
    sys.exit(main())
