"""What the losses cost over torch's own: time of forward and backward, memory, observers, torch.compile.

    python benchmarks/losses.py                  # on the CPU, 6 to 8 minutes on two idle cores
    python benchmarks/losses.py --cases BCE      # only cases whose name contains this
    python benchmarks/losses.py --one-thread     # half the time
    python benchmarks/losses.py --quick          # small cases, few rounds, one setting: a check, no measurement
    python benchmarks/losses.py cuda

It prints Markdown tables, and its progress to stderr. A time is a ratio to torch's own loss of the same target
(torchvision's for sigmoid focal), given as "median [lowest highest]" of five runs. A run is the median ratio over
rounds that take both in turns, and the five runs of a case are spread over the measurement. Everything has epsilon 1
and the mean for its reduction.

On the CPU each case is timed with one thread (T1) and with two (T2), and with two settings of glibc's allocator, each
in a process of its own. "stock" is the default: large buffers are mapped anew in each call. "warm" keeps freed memory,
as caching allocators do. Other C libraries ignore the settings. Time on CUDA is that between two events.

The verdict is about T1 and the allocator that does worse: "met" if the median is at most the must; "met within the
spread" if it is above by less than the highest run minus the lowest; "missed" otherwise. "index, operations alone" is
not one of our losses: it is the closed form without anything around it, below which the small case cannot get.

Memory is in units of the logits. The peak is what forward and backward hold at once beside logits and target, the
gradient included; "kept" is what waits between the two. "Usual" is the usual formulation of the same loss: softmax,
one-hot target, 1 - pt.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import measure
import torch
from cases import CASES, COMPILED, Case, Prepared, prepare, prepare_compiled

RUNS = 5
BUDGET, QUICK_BUDGET = 0.25, 0.01  # seconds of a run
QUICK_NUMEL = 2_000_000
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "500000000",
}
MEMORY_COLUMNS = ("peak ours", "peak torch", "kept ours", "kept torch")
MUST_PEAK, AIM_PEAK = (1.15,), (1.0,)
MUST_OBSERVING, AIM_OBSERVING = (1.4,), (1.2,)
COMPILED_ROWS = {
    "torch": ("over torch's eager loss", (1.0,), ()),
    "torch compiled": ("over torch's compiled loss", (), (1.25,)),
}
VERDICTS = ("met", "met within the spread", "missed")


class Setting(NamedTuple):
    """What a worker process runs under: an allocator ("stock", "warm", or "cuda" for that of CUDA) and threads."""

    allocator: str
    threads: int

    def __str__(self) -> str:
        return "ratio" if self.allocator == "cuda" else f"{self.allocator} T{self.threads}"


STOCK, WARM = Setting("stock", 1), Setting("warm", 1)
ON_CPU = (STOCK, WARM, Setting("stock", 2), Setting("warm", 2))
ON_CUDA = (Setting("cuda", 1),)
Measured = dict[Setting, list[float]]
Row = dict[str, Any]


def bound(bounds: tuple[float, ...], setting: Setting) -> float | None:
    """Return the bound that applies in a setting, None without one."""
    if not bounds:
        return None
    return bounds[-1] if setting.allocator == "warm" else bounds[0]


def verdict(measured: Measured, must: tuple[float, ...]) -> str:
    """Judge the runs with one thread, by the allocator that does worse."""
    found = []
    for setting, ratios in measured.items():
        limit = bound(must, setting)
        if limit is None or setting.threads != 1:
            continue
        excess = statistics.median(ratios) - limit
        found.append(VERDICTS[0] if excess <= 0 else VERDICTS[1 if excess < max(ratios) - min(ratios) else 2])
    return max(found, key=VERDICTS.index, default="")


def selected(options: argparse.Namespace) -> list[Case]:
    """Return the cases that were asked for."""
    fits = [case for case in CASES if options.cases in case.name]
    return [case for case in fits if case.numel < QUICK_NUMEL] if options.quick else fits


def compiles(options: argparse.Namespace) -> bool:
    """Whether the compiled loss was asked for."""
    return not options.quick and options.cases in COMPILED.name


def no_compiler() -> str | None:
    """Return the name of the C++ compiler that torch.compile would call, if it is not there."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return None if shutil.which(compiler) else compiler


def work(options: argparse.Namespace) -> None:
    """Measure every case in the setting of this process; print each result as one JSON line."""
    setting = Setting(options.worker, options.threads)
    torch.set_num_threads(setting.threads)
    budget = QUICK_BUDGET if options.quick else BUDGET

    def compare(table: str, name: str, prepared: Prepared, loss: str, reference: str) -> None:
        losses = prepared.losses
        ratio, seconds = measure.run(losses[loss], losses[reference], prepared.input, budget)
        print(json.dumps({"table": table, "case": name, "ratio": ratio, "ms": 1e3 * seconds}), flush=True)

    for number in range(RUNS):
        for case in selected(options):
            prepared = prepare(case, options.device)
            compare("time", case.name, prepared, "ours", "torch")
            if case.observing and setting.threads == 1:
                compare("observing", case.name, prepared, "observed", "ours")
            if number > 0 or setting not in (STOCK, *ON_CUDA):
                continue
            if case.usual:
                compare("usual", case.name, prepared, "usual", "torch")
            if case.memory:
                memory = {
                    f"{what} {loss}": value
                    for loss in ("ours", "torch")
                    for what, value in (
                        ("peak", measure.peak(prepared.losses[loss], prepared.input)),
                        ("kept", measure.kept(prepared.losses[loss], prepared.input, prepared.target)),
                    )
                }
                print(json.dumps({"table": "memory", "case": case.name, **memory}), flush=True)
    if compiles(options) and setting.threads == 1 and not no_compiler():
        prepared = prepare_compiled(options.device)
        for _ in range(RUNS):
            for reference in COMPILED_ROWS:
                compare("compiled", reference, prepared, "ours", reference)


def rows_of_worker(options: argparse.Namespace, setting: Setting) -> tuple[list[Row], bool]:
    """Measure in a process of its own, because allocator and threads are set before it starts.

    Returns:
        What the process sent, and whether it got to its end.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(setting.threads)
    environment.setdefault("KINETO_LOG_LEVEL", "99")  # torch.profiler reports on stderr that it starts and stops
    if setting.allocator == "warm":
        environment |= KEEP_FREED_MEMORY
    command = [sys.executable, str(Path(__file__).resolve()), options.device, "--cases", options.cases]
    command += ["--quick"] * options.quick + ["--worker", setting.allocator, "--threads", str(setting.threads)]
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    outcome = f"failed with {done.returncode} after" if done.returncode else "took"
    seconds = time.perf_counter() - began
    print(f"{setting.allocator} T{setting.threads} {outcome} {seconds:.0f} s", file=sys.stderr, flush=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], done.returncode == 0


def written(bounds: tuple[float, ...]) -> str:
    """Write a must or an aim."""
    first, *rest = (f"{value:g}" for value in bounds) if bounds else ("",)
    return ", warm ".join([first, *rest])


def spread(ratios: Sequence[float] | None) -> str:
    """Write the median, lowest and highest of several runs."""
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f} {max(ratios):.2f}]" if ratios else ""


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, or nothing if it has no rows."""
    if rows:
        print(f"\n## {title}\n")
        for cells in (header, ["---"] * len(header), *rows):
            print("| " + " | ".join(cells) + " |")


class Report:
    """The results of all workers, and the tables made of them."""

    def __init__(self, device: str, settings: Sequence[Setting], results: dict[Setting, list[Row]]) -> None:
        self.judged = device == "cpu"  # the bounds are for the CPU
        self.settings = settings
        self.one_thread = [setting for setting in settings if setting.threads == 1]
        self.ratios: dict[tuple[str, str], Measured] = defaultdict(lambda: defaultdict(list))
        self.ms: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.memory: dict[str, Row] = {}
        for setting, rows in results.items():
            for row in rows:
                if row["table"] == "memory":
                    self.memory[row["case"]] = row
                    continue
                key = row["table"], row["case"]
                self.ratios[key][setting].append(row["ratio"])
                if setting == settings[0]:
                    self.ms[key].append(row["ms"])

    def judgement(self, measured: Measured, must: tuple[float, ...], aim: tuple[float, ...]) -> list[str]:
        """Return the cells "must", "aim" and "verdict", no cells for devices without bounds."""
        return [written(must), written(aim), verdict(measured, must)] if self.judged else []

    def cells(self, table: str, name: str, settings: Sequence[Setting]) -> list[str]:
        """Return the time of the reference and the ratios of each setting."""
        key = table, name
        milliseconds = f"{statistics.median(self.ms[key]):.3g}" if self.ms[key] else ""
        return [milliseconds, *(spread(self.ratios[key].get(each)) for each in settings)]

    def print(self) -> None:
        """Print all tables."""
        bounds = ["must", "aim", "verdict"] if self.judged else []
        times, observing, memory = [], [], []
        for case in CASES:
            if ("time", case.name) in self.ratios:
                usual = self.ratios.get(("usual", case.name), {}).get(self.settings[0])
                times.append([case.name, *self.cells("time", case.name, self.settings)])
                times[-1] += self.judgement(self.ratios["time", case.name], case.must, case.aim)
                times[-1].append(f"{usual[0]:.1f}" if usual else "")
            if ("observing", case.name) in self.ratios:
                observing.append([case.name, *self.cells("observing", case.name, self.one_thread)])
                observing[-1] += self.judgement(self.ratios["observing", case.name], MUST_OBSERVING, AIM_OBSERVING)
            if case.name in self.memory:
                row = self.memory[case.name]
                memory.append([case.name, *(f"{row[what]:.2f}" for what in MEMORY_COLUMNS)])
                memory[-1] += self.judgement({self.settings[0]: [row["peak ours"]]}, MUST_PEAK, AIM_PEAK)
        header = ["case", "torch, ms", *map(str, self.settings), *bounds, f"usual, {self.settings[0]}"]
        print_table("Time over torch's", header, times)
        print_table("Memory, in logits", ["case", *MEMORY_COLUMNS, *bounds], memory)
        header = ["case", "unobserved, ms", *map(str, self.one_thread), *bounds]
        print_table("Time with an empty observer over without", header, observing)
        compiled = []
        for reference, (title, must, aim) in COMPILED_ROWS.items():
            if ("compiled", reference) in self.ratios:
                compiled.append([title, *self.cells("compiled", reference, self.one_thread)])
                compiled[-1] += self.judgement(self.ratios["compiled", reference], must, aim)
        header = ["compiled loss", "torch, ms", *map(str, self.one_thread), *bounds]
        print_table(f"Time under torch.compile, {COMPILED.name}", header, compiled)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or what one worker measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device", nargs="?", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="only small cases, few rounds, one setting")
    parser.add_argument("--cases", default="", metavar="SUBSTRING", help="only cases whose name contains this")
    parser.add_argument("--one-thread", action="store_true", help="leave out the measurements with two threads")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device")
    if not selected(options):
        parser.error(f"no case is called {options.cases!r}")
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {os.cpu_count()} cores"
    print(f"torch {torch.__version__}, {name}, {RUNS} runs", flush=True)
    settings = ON_CUDA if options.device == "cuda" else ON_CPU[: 1 if options.quick else 2 if options.one_thread else 4]
    results = {setting: rows_of_worker(options, setting) for setting in settings}
    Report(options.device, settings, {setting: rows for setting, (rows, _) in results.items()}).print()
    if compiles(options) and no_compiler():
        print(f"\ntorch.compile was not measured: there is no {no_compiler()}.")
    if failed := [str(setting) for setting, (_, ended) in results.items() if not ended]:
        sys.exit(f"Incomplete: the process for {', '.join(failed)} failed.")


if __name__ == "__main__":
    main()
