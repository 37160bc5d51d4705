"""Searches in several processes, one of which is killed. Each process imports torch, so these tests are few."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from polyloss_lightning.search import Setting, run_queue, search
from polyloss_lightning.search.engine import run_search
from polyloss_lightning.search.plan import Plan
from polyloss_lightning.search.storage import Location, use_driver
from polyloss_lightning.search.worker import Job

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else None


class Objective:
    def __init__(self, folder, suicide):
        self.folder, self.suicide = folder, suicide

    def __call__(self, gain, seed):
        with (self.folder / "calls.txt").open("a") as file:
            file.write(f"{gain} {seed}\\n")
        if self.suicide and (gain, seed) == (1.0, 1) and not (self.folder / "killed").exists():
            (self.folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.3)
        return gain + 0.01 * ((7 * seed + int(10 * gain)) % 5)


def several_workers():
    return search(
        Objective(FOLDER, True), {"0": 0.0, "1": 1.0}, baseline="0", confirm_seeds=3, study=FOLDER / "study", workers=2
    )


def one_of_several_machines(url):
    # Each process takes itself for a machine of its own, so only the heartbeat tells that it was killed.
    name = f"machine {os.getpid()}"
    run_queue.this_host = lambda: name
    from polyloss_lightning.search import worker
    worker.this_host = run_queue.this_host
    plan = Plan((Setting("0", 0.0), Setting("1", 1.0)), "0")
    location = Location(FOLDER / "study", use_driver(url), heartbeat=1)
    return run_search(Job(Objective(FOLDER, False), plan, location, 6), workers=1, in_process=True)


if __name__ == "__main__":
    answer = several_workers() if len(sys.argv) == 2 else one_of_several_machines(sys.argv[2])
    print(answer.sentence)
"""
DEBIAN = Path("/usr/lib/postgresql")


def start(folder, *arguments):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def calls(folder):
    path = folder / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_the_run_of_a_killed_worker_is_done_by_another(folder):
    output, _ = start(folder).communicate(timeout=240)
    assert "1, picked on seeds 0 to 2, beats 0 by" in output, output
    assert "another one takes its place" in output
    done = calls(folder)
    assert len(set(done)) == 2 * 3 + 2 * 3
    assert done.count("1.0 1") == 2
    assert len(done) == 13


@pytest.fixture
def postgresql():
    """URL of a PostgreSQL server of our own on the loopback device."""
    programs = shutil.which("initdb") or next(iter(sorted(map(str, DEBIAN.glob("*/bin/initdb")), reverse=True)), None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg, the driver for PostgreSQL, is not installed")
    binaries = Path(programs).parent
    # The server refuses to run as root, and Debian's package brings a user for it.
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = Path(subprocess.check_output([*user, "mktemp", "-d"], text=True, cwd="/").strip())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program, *arguments):
        command = [*user, str(binaries / program), *arguments]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    run("initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run("pg_ctl", "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start")
    yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")
    shutil.rmtree(folder)


def test_two_machines_share_a_study_on_a_server_and_the_heartbeat_finds_the_one_that_was_killed(folder, postgresql):
    first, second = start(folder, postgresql), start(folder, postgresql)
    limit = time.monotonic() + 200
    while len(calls(folder)) < 3 and time.monotonic() < limit:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    output, _ = second.communicate(timeout=200)
    assert "1, picked on seeds 0 to 2, beats 0 by" in output, output
    done = calls(folder)
    assert len(set(done)) == 2 * 3 + 2 * 6
    assert len(done) in (18, 19)  # 19 if the first process was killed in a run
