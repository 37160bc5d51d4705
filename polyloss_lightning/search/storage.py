"""Where the runs of a search are kept: an Optuna study in a file, a database or a journal."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyloss_lightning.search.extra import require

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

_JOURNAL = "journal:"


@dataclass(frozen=True)
class Location:
    """The folder of a search, and where its study is kept.

    Attributes:
        folder: for the output of the runs, the report and, without ``storage``, the study.
        storage: URL of a database (``postgresql://...``, ``mysql://...``), or ``journal:PATH`` of a file in a folder
            that several machines share. None is an SQLite file in ``folder``, for the workers of one machine.
        heartbeat: seconds between two signs of life of a running worker. A run without one for three times as long is
            given to another worker. (A journal has no heartbeat: a run on another machine that was killed stays
            marked as running until somebody runs the search with ``retry_running``.)
    """

    folder: Path
    storage: str | None = None
    heartbeat: int = 20

    @property
    def name(self) -> str:
        """Name of a new study in the storage."""
        return self.folder.resolve().name

    @property
    def exists(self) -> bool:
        """Whether there is a study."""
        if self.storage is None and not self._file.exists():
            return False
        storage = self._open()
        return self._name_in(storage) in require("optuna").get_all_study_names(storage)

    @property
    def has_heartbeat(self) -> bool:
        """Whether the storage notices workers that were killed on another machine."""
        return not (self.storage or "").startswith(_JOURNAL)

    def open(self, direction: str | None = None) -> Study:
        """Open the study.

        Args:
            direction: ``"maximize"`` or ``"minimize"`` creates the study if there is none; None does not.

        Raises:
            FileNotFoundError: if there is no study and it is not to be created.
            ValueError: if the path of the folder does not fit into the URL of a database.
        """
        optuna = require("optuna")
        sampler = optuna.samplers.RandomSampler()  # never used: all runs are enqueued
        if direction is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            storage = self._open()
            study: Study = optuna.create_study(
                storage=storage,
                study_name=self._name_in(storage),
                sampler=sampler,
                direction=direction,
                load_if_exists=True,
            )
            return study
        if not self.exists:
            raise FileNotFoundError(f"there is no study {self.name!r} in {self.storage or self.folder}")
        storage = self._open()
        loaded: Study = optuna.load_study(storage=storage, study_name=self._name_in(storage), sampler=sampler)
        return loaded

    def _name_in(self, storage: BaseStorage) -> str:
        """Return the name of the study in ``storage``. In a folder that was renamed, it is the earlier name."""
        names: list[str] = require("optuna").get_all_study_names(storage)
        return names[0] if self.storage is None and len(names) == 1 else self.name

    @property
    def _file(self) -> Path:
        return self.folder / "study.db"

    def _open(self) -> BaseStorage:
        optuna = require("optuna")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if not self.has_heartbeat:
                path = Path(str(self.storage).removeprefix(_JOURNAL))
                path.parent.mkdir(parents=True, exist_ok=True)
                backend = optuna.storages.journal.JournalFileBackend(str(path))
                journal: BaseStorage = optuna.storages.JournalStorage(backend)
                return journal
            url = self.storage or _sqlite_url(self._file.resolve())
            # A worker waits for the others to finish writing.
            options: dict[str, Any] = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {}
            retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3)
            create = functools.partial(
                optuna.storages.RDBStorage,
                url,
                engine_kwargs=options,
                heartbeat_interval=self.heartbeat,
                grace_period=3 * self.heartbeat,
                heartbeat_stale_trial_callback=retry,
            )
            try:
                storage: BaseStorage = create()
            except Exception:  # two commands that create the tables at the same time
                time.sleep(2.0)
                storage = _or_error(create)
            return storage


def _or_error(create: Callable[[], BaseStorage]) -> BaseStorage:
    try:
        return create()
    except require("sqlalchemy").exc.SQLAlchemyError as error:
        raise ValueError(f"the storage cannot be opened: {str(error).splitlines()[0]}") from error


def _sqlite_url(path: Path) -> str:
    sqlalchemy = require("sqlalchemy")
    # Only SQLAlchemy knows whether it unquotes a path: it does since 2.1.
    url: str = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
    if sqlalchemy.make_url(url).database != str(path):
        raise ValueError(
            f"SQLAlchemy {sqlalchemy.__version__} cannot open a database in {str(path.parent)!r}: use a `study` folder "
            "without '?' in its path, or SQLAlchemy 2.1"
        )
    return url.replace("{", "{{").replace("}", "}}")  # Optuna formats it


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Optuna's messages: the search itself reports what matters, such as a run that failed."""
    logging = require("optuna").logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def use_driver(url: str) -> str:
    """Return ``url`` with the driver that is installed for PostgreSQL, unless it names one.

    Example:
        >>> use_driver("mysql://server/name")
        'mysql://server/name'
    """
    return url.replace("postgresql://", "postgresql+psycopg://", 1) if url.startswith("postgresql://") else url
