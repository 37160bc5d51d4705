"""The subcommands ``polyloss search`` and ``polyloss report``."""

import argparse
import re
import shlex
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyloss_lightning.search.worker import Job

_DESCRIPTION = """Does PolyLoss help on my data, and with which epsilon? Trains every setting on a few seeds, then
compares the best one with plain cross-entropy, and with cross-entropy at other learning rates, on fresh seeds. All
other options are those of `polyloss fit`. The same command continues a search that was stopped."""


def search(arguments: list[str]) -> None:
    """Run ``polyloss search --config CONFIG ...``."""
    options, fit_arguments = _search_parser().parse_known_args(arguments)
    try:
        _search(options, fit_arguments, arguments)
    except (ModuleNotFoundError, OSError, ValueError) as error:
        raise SystemExit(f"polyloss search: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("polyloss search: stopped; the same command continues it") from None


def report(arguments: list[str]) -> None:
    """Run ``polyloss report STUDY``."""
    parser = argparse.ArgumentParser(
        prog="polyloss report", description="Write the web page and the table of a search."
    )
    parser.add_argument("study", type=Path, help="folder of the search")
    parser.add_argument("--storage", help="URL of the database, if the study is not in the folder")
    options = parser.parse_args(arguments)
    from polyloss_lightning.search.report import write_report
    from polyloss_lightning.search.storage import Location, use_driver

    try:
        paths = write_report(Location(options.study, options.storage and use_driver(options.storage)))
    except (ModuleNotFoundError, OSError, ValueError) as error:
        raise SystemExit(f"polyloss report: {error}") from None
    for path in paths:
        print(path)


def _search(options: argparse.Namespace, fit_arguments: list[str], arguments: list[str]) -> None:
    from polyloss_lightning.cli.search_configs import check_learning_rates
    from polyloss_lightning.search.devices import default_workers
    from polyloss_lightning.search.engine import run_search
    from polyloss_lightning.search.pick_config import write_pick
    from polyloss_lightning.search.table import as_text

    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
    job, num_threads = _job(options, fit_arguments, arguments)
    workers, reason = (
        default_workers(num_threads, job.devices_per_run)
        if options.workers is None
        else (options.workers, "as requested")
    )
    if workers < 1:
        raise ValueError(f"`workers` must be at least 1, got {workers}")
    total = job.plan.number_of_runs(job.confirm_seeds)
    _print(f"{len(job.plan.settings)} settings, {total} runs, {workers} at a time ({reason}), in {job.location.folder}")
    for note in job.plan.notes:
        print(f"note: {note}")
    if options.dry_run:
        for setting in job.plan.settings:
            print(f"  {setting.name}")
        explored, confirmed = job.plan.explore_seeds, f"the baseline and {len(job.plan.controls)} control(s)"
        print(f"explore: each on seeds 0 to {explored - 1}")
        print(f"confirm: the best of {len(job.plan.candidates)}, {confirmed} on {job.confirm_seeds} fresh seeds")
        return
    check_learning_rates([setting.value for setting in job.plan.settings])
    if not job.location.has_heartbeat:
        print(
            "note: a journal has no heartbeat. A run on another machine that was killed stays marked as running; once "
            "no worker is alive, --retry_running gives it back"
        )
    answer = run_search(job, workers=workers, in_process=False, retry_running=options.retry_running, write=_print)
    print(f"\n{as_text(answer)}")
    if answer.pick is not None:
        print(f"config of the pick: {write_pick(job.location.folder, job.plan[answer.pick].value)}")
    print(f"report: polyloss report {shlex.join(_report_arguments(options, job.location.folder))}")


def _job(options: argparse.Namespace, fit_arguments: list[str], arguments: list[str]) -> tuple["Job", int | None]:
    from polyloss_lightning.cli.search_configs import ConfigObjective, resolve
    from polyloss_lightning.search.config import checkpoint_monitor, devices_per_run, seed_keys
    from polyloss_lightning.search.grid import LEARNING_RATE_FACTORS, Grid, settings_of
    from polyloss_lightning.search.monitor import monitor_of
    from polyloss_lightning.search.plan import Plan
    from polyloss_lightning.search.storage import Location, use_driver
    from polyloss_lightning.search.worker import Job

    config = resolve(fit_arguments)
    factors = LEARNING_RATE_FACTORS if options.learning_rate_factors is None else options.learning_rate_factors
    grid = Grid(
        options.epsilon or (), [tuple(pair) for pair in options.schedule or ()], options.vary, factors, options.control
    )
    settings, controls, notes = settings_of(grid, lambda more: resolve([*fit_arguments, *more]))
    monitor, mode = monitor_of(checkpoint_monitor(config), options.monitor, options.mode)
    keys = seed_keys(config, options.seed_key)
    if not keys:
        notes.append(
            "the data have no seed that is known (--seed_key names it), so the split is fixed and the interval covers "
            "the randomness of training only"
        )
    plan = Plan(
        tuple(settings),
        settings[0].name,
        tuple(controls),
        options.explore_seeds,
        monitor,
        mode,
        tuple(notes),
        _without_password(f"polyloss search {shlex.join(arguments)}"),
    )
    folder = options.study or Path("polyloss_search") / _stem(fit_arguments)
    location = Location(folder, options.storage and use_driver(options.storage))
    deadline = None if options.max_time is None else time.time() + _seconds(options.max_time)
    objective = ConfigObjective(folder.resolve() / "runs", keys)
    job = Job(objective, plan, location, options.confirm_seeds, deadline, devices_per_run(config))
    return job, config.get("num_threads")


def _search_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="polyloss search", description=_DESCRIPTION, allow_abbrev=False)
    add: Any = parser.add_argument
    add("--epsilon", nargs="+", type=float, metavar="E", help="constant epsilons; default -1 -0.5 0 1 2 4")
    add(
        "--schedule",
        nargs=2,
        type=float,
        action="append",
        metavar=("FIRST", "LAST"),
        help="also anneal epsilon linearly; default -1 2",
    )
    add("--vary", action="append", default=[], metavar="KEY=V1,V2", help="also vary any key of the config")
    add(
        "--learning_rate_factors",
        nargs="*",
        type=float,
        metavar="F",
        help="multiples of the learning rate as controls; default 0.5 2 3",
    )
    add(
        "--control", action="append", default=[], metavar="KEY=V", help="another control: the baseline with this change"
    )
    add(
        "--explore_seeds",
        type=int,
        default=3,
        metavar="N",
        help="number of seeds on which the best setting is picked; default 3",
    )
    add(
        "--confirm_seeds",
        type=int,
        default=10,
        metavar="N",
        help="number of fresh seeds on which it is compared; default 10",
    )
    add("--seed_key", metavar="KEY", help="key of the data's seed; default data.init_args.seed if there is one")
    add("--monitor", metavar="METRIC", help="decides; default that of the ModelCheckpoint, or balanced accuracy")
    add("--mode", choices=("max", "min"), help="whether a large or a small value is good")
    add("--study", type=Path, metavar="FOLDER", help="for all files; default polyloss_search/CONFIG")
    add(
        "--storage",
        metavar="URL",
        help="database for workers on several machines: postgresql://..., mysql://..., journal:PATH",
    )
    add("--workers", type=int, metavar="N", help="number of runs at the same time on this machine")
    add("--max_time", metavar="HH:MM:SS", help="stop after this time with what is complete")
    add("--retry_running", action="store_true", help="give back runs marked as running, if no worker is alive")
    add("--dry_run", action="store_true", help="print settings and runs only")
    return parser


def _print(line: str) -> None:
    print(line, flush=True)  # also if the output is a file


def _stem(fit_arguments: Sequence[str]) -> str:
    for previous, argument in zip(["", *fit_arguments], fit_arguments, strict=False):
        if previous in ("-c", "--config"):
            return Path(argument).stem
        if argument.startswith("--config="):
            return Path(argument.removeprefix("--config=")).stem
    return "search"


def _seconds(text: str) -> float:
    try:
        hours, minutes, seconds = map(float, text.split(":"))
    except ValueError:
        raise ValueError(f"`max_time` must be HH:MM:SS, got {text!r}") from None
    return 3600 * hours + 60 * minutes + seconds


def _without_password(command: str) -> str:
    """Hide the password of a database, because the report contains the command."""
    return re.sub(r"(://[^:/@\s]*):[^/\s]*@", r"\1:***@", command)


def _report_arguments(options: argparse.Namespace, folder: Path) -> list[str]:
    return [str(folder), *(["--storage", options.storage] if options.storage else [])]
