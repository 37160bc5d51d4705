"""Searches in several processes, one of which is killed. Each process imports torch, so these tests are few."""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polyloss_lightning.search import Setting, run_queue, search
from polyloss_lightning.search.engine import run_search
from polyloss_lightning.search.plan import Plan
from polyloss_lightning.search.storage import Location
from polyloss_lightning.search.worker import Job

SCRIPT = """
import os, signal, sys, time
from contextlib import suppress
from pathlib import Path
from polyloss_lightning.search import Setting, run_queue, search
from polyloss_lightning.search.engine import run_search
from polyloss_lightning.search.plan import Plan
from polyloss_lightning.search.storage import Location, use_driver
from polyloss_lightning.search.worker import Job

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else None


class Objective:
    def __init__(self, folder):
        self.folder = folder

    def __call__(self, gain, seed):
        with (self.folder / "calls.txt").open("a") as file:
            file.write(f"{gain} {seed}\\n")
        # The test asks for the worker of the next run to be killed.
        with suppress(FileNotFoundError):
            (self.folder / "kill").unlink()
            (self.folder / "killed").write_text(f"{gain} {seed}")
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3 if (self.folder / "slow").exists() else 0.3)
        return gain + 0.01 * (1 + gain) * (7 * seed % 5)


def several_workers():
    return search(
        Objective(FOLDER), {"0": 0.0, "1": 1.0}, baseline="0", confirm_seeds=3, study=FOLDER / "study", workers=2
    )


def one_of_several_machines(url):
    # Each process takes itself for a machine of its own, so only the heartbeat shows that it was killed.
    name = f"machine {os.getpid()}"
    run_queue.this_host = lambda: name
    plan = Plan((Setting("0", 0.0), Setting("1", 1.0)), "0")
    location = Location(FOLDER / "study", use_driver(url), heartbeat=1)
    return run_search(Job(Objective(FOLDER), plan, location, 6), workers=1, in_process=True)


if __name__ == "__main__":
    answer = several_workers() if len(sys.argv) == 2 else one_of_several_machines(sys.argv[2])
    print(answer.sentence)
"""
DEBIAN = Path("/usr/lib/postgresql")


def start(folder, *arguments):
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), *arguments]
    # In a group of its own, as a command in a terminal; what a shell runs in the background would ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, before)


def calls(folder):
    path = folder / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def wait_for_calls(folder, number, process):
    while len(calls(folder)) < number and process.poll() is None:
        time.sleep(0.02)


def ends(group):
    """Whether all processes of a group end soon (multiprocessing has one that ends after the others)."""
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_ctrl_c_and_killed_workers_lose_no_finished_run(folder):
    # Python may ignore the first interrupt in a worker (if it comes in a weakref callback), which is killed 10 s later.
    (folder / "slow").touch()
    interrupted = start(folder)
    wait_for_calls(folder, 4, interrupted)
    os.killpg(interrupted.pid, signal.SIGINT)
    first, _ = interrupted.communicate(timeout=900)
    assert "KeyboardInterrupt" in first
    assert ends(interrupted.pid)
    before = calls(folder)
    assert first.count("[") >= 1, first  # lines of finished runs

    (folder / "slow").unlink()
    (folder / "kill").touch()
    output, _ = start(folder).communicate(timeout=900)
    assert "1, picked on seeds 0 to 2, beats 0 by" in output, output
    assert "another one takes its place" in output
    done, killed = calls(folder), (folder / "killed").read_text()
    assert len(set(done)) == 2 * 3 + 2 * 3
    assert killed in done[:-1]
    again = {call for call in set(done) if done.count(call) > 1} - {killed}
    # Each of the two workers was interrupted in one run, which need not be the one that was begun last.
    assert len(again) <= 2, (before, done)
    assert again <= set(before)


def test_a_limit_of_time_ends_the_workers(folder):
    plan = {"baseline": "0", "study": folder / "study", "write": lambda line: None}
    answer = search(pow, {"0": 0.0, "1": 1.0}, workers=2, max_time=0, **plan)
    assert answer.sentence == "Not finished: 0 of 6 runs of the explore phase are complete."
    assert multiprocessing.active_children() == []


def fork(function):
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    return process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_machines_share_a_journal_and_a_killed_run_is_given_back_when_asked(folder, monkeypatch):
    plan = Plan((Setting("0", 0.0), Setting("1", 1.0)), "0")
    location = Location(folder / "study", f"journal:{folder}/shared/journal.log")

    def objective(gain, seed):
        with (folder / "calls.txt").open("a") as file:
            file.write(f"{gain} {seed}\n")
        if multiprocessing.parent_process() and (gain, seed) == (1.0, 1) and calls(folder).count("1.0 1") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)
        return gain + 0.01 * (1 + gain) * (seed % 3)

    def machine(name, limit=None, **options):
        monkeypatch.setattr(run_queue, "this_host", lambda: name)
        deadline = None if limit is None else time.time() + limit
        job = Job(objective, plan, location, 4, deadline)
        return run_search(job, workers=1, in_process=True, write=lambda line: None, **options)

    processes = [fork(lambda name=name: machine(name, limit=20)) for name in ("first", "second")]
    # One of them is killed in a run, and the other waits for it.
    while all(process.is_alive() for process in processes):
        time.sleep(0.02)
    while len(calls(folder)) < 6:
        time.sleep(0.02)
    time.sleep(0.3)
    for process in processes:
        process.kill()
        process.join()
    assert sorted(calls(folder)) == sorted(f"{gain} {seed}" for gain in (0.0, 1.0) for seed in range(3))
    assert machine("third", limit=0).sentence == "Not finished: 5 of 6 runs of the explore phase are complete."
    assert machine("third", retry_running=True).comparison.verdict == "better"
    assert len(calls(folder)) == 6 + 1 + 8


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


@pytest.mark.slow
def test_two_machines_share_a_study_on_a_server_and_the_heartbeat_finds_the_one_that_was_killed(folder, postgresql):
    first, second = start(folder, postgresql), start(folder, postgresql)
    wait_for_calls(folder, 3, first)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=900)
    output, _ = second.communicate(timeout=900)
    assert "1, picked on seeds 0 to 2, beats 0 by" in output, output
    done = calls(folder)
    assert len(set(done)) == 2 * 3 + 2 * 6
    assert len(done) in (18, 19)  # 19 if the first process was killed in a run
