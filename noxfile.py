"""All checks. ``nox`` runs the default ones, ``nox --list`` lists all, and ``nox -s NAME -- ARGS`` passes ARGS on."""

import itertools
import re
import shutil
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"  # nox.project.dependency_groups
nox.options.sessions = ["lint", "tests"]
nox.options.error_on_missing_interpreters = False  # `matrix` runs on those that are installed

PROJECT = nox.project.load_toml("pyproject.toml")
ON_ALL_CORES = ["--numprocesses", "auto", "--dist", "worksteal"]
# Some tests start several processes. One thread per process avoids using more threads than there are cores.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
BUILT = Path(__file__).parent / "dist"


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group in pyproject.toml."""
    return list(nox.project.dependency_groups(PROJECT, name))


def wheel_file() -> Path:
    """Return the wheel that `build` left."""
    (path,) = BUILT.glob("*.whl")
    return path


@nox.session
def lint(session: nox.Session) -> None:
    """Check errors, style, docstrings and formatting with ruff."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def tests(session: nox.Session) -> None:
    """Run mypy, the tests and the doctests, in one environment because torch takes several gigabytes."""
    session.install("-e", ".[all]", *group("test"))
    session.run("mypy")
    session.run("pytest", *ON_ALL_CORES, *session.posargs, env=ENVIRONMENT)


@nox.session
def long(session: nox.Session) -> None:
    """Run the tests that take long, and those of the losses by the formula alone and in blocks of a few elements."""
    session.install("-e", ".[all]", *group("test"))
    session.run("pytest", "-m", "slow", *session.posargs, env=ENVIRONMENT)
    if not session.posargs:
        for path in ("formula", "blocks"):
            session.run("pytest", *ON_ALL_CORES, "tests/core", "tests/losses", "--path", path, env=ENVIRONMENT)


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest versions that pyproject.toml allows."""
    extras = itertools.chain.from_iterable(PROJECT["project"]["optional-dependencies"].values())
    bounds = [*PROJECT["project"]["dependencies"], *extras, *group("test")]
    lowest = [bound.replace(">=", "==") for bound in bounds if ">=" in bound and "mypy" not in bound]
    session.install("-e", ".[all]", *lowest)
    session.run("pytest", *ON_ALL_CORES, *session.posargs, env=ENVIRONMENT)


@nox.session
def third_party(session: nox.Session) -> None:
    """Test the loss override with LightningModules of other packages."""
    session.install("-e", ".[all]", *group("test"), *group("third_party"))
    session.run("pytest", "tests/third_party", *session.posargs, env=ENVIRONMENT)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks. With `-- NAME ARGS`, run one of them and write its section of benchmarks/README.md."""
    others = group("third_party") if "third_party" in session.posargs else []
    session.install("-e", ".[all]", *group("test"), *others)
    if session.posargs:
        session.run("python", "benchmarks/write_readme.py", *session.posargs, env=ENVIRONMENT)
        return
    for name in re.findall(r"<!-- (\w+): begin", Path("benchmarks/README.md").read_text(encoding="utf-8")):
        if name != "third_party":  # the session of that name runs its tests
            session.run("python", f"benchmarks/{name}.py", env=ENVIRONMENT)


@nox.session(python=["3.10", "3.11", "3.12", "3.13", "3.14"])
def matrix(session: nox.Session) -> None:
    """Run the tests of the mathematics on every supported version of Python that is installed."""
    oldest = session.python == "3.10"
    session.install("-e", ".[all]", *group("test"), *(["torch~=2.6.0", "torchvision~=0.21.0"] if oldest else []))
    folders = ["core", "losses", "schedules", "interception", "migration"]
    session.run("pytest", *(session.posargs or [f"tests/{folder}" for folder in folders]), env=ENVIRONMENT)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation with warnings as errors, and look at every page in headless Chromium."""
    session.install("-e", ".[all]", *group("test"), *group("docs"))  # the tests carry the table of conditions
    shutil.rmtree("docs/build", ignore_errors=True)  # pages that no longer exist would be checked, too
    session.run("sphinx-build", "-q", "-W", "--keep-going", "docs", "docs/build/html", env=ENVIRONMENT)
    session.run("python", "docs/check_pages.py", "docs/build/html", *session.posargs)


@nox.session
def pages(session: nox.Session) -> None:
    """Write the report of a search, and look at it in headless Chromium."""
    session.install("-e", ".[all]", *group("docs"))
    session.run("python", "docs/check_report.py", *session.posargs, env=ENVIRONMENT)


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel, check them, and try the wheel in an empty environment."""
    session.install("build", "twine")
    shutil.rmtree(BUILT, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(BUILT), ".")
    session.run("twine", "check", "--strict", *map(str, BUILT.iterdir()))
    with zipfile.ZipFile(wheel_file()) as archive:
        missing = {
            "polyloss_lightning/py.typed",
            "polyloss_lightning/configs/digits_longtail.yaml",
        }.difference(archive.namelist())
    if missing:
        session.error(f"the wheel lacks {sorted(missing)}")
    session.notify("wheel")


@nox.session(default=False)
def wheel(session: nox.Session) -> None:
    """Install the wheel that `build` left, without extras; import it, and ask the command for help."""
    session.install(str(wheel_file()))
    session.chdir(session.create_tmp())  # away from the source
    session.run("python", "-c", "import polyloss_lightning; print(polyloss_lightning.__version__)")
    # Without the extra, the command ends with one line that names it.
    output = session.run("polyloss", "--help", success_codes=[1], silent=True)
    if not re.fullmatch(r"polyloss needs \w+: pip install \"polyloss-lightning\[cli\]\"", str(output).strip()):
        session.error(f"`polyloss --help` without its extra printed {output!r}")
