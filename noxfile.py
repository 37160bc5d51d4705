"""Every check of the project: ``nox`` runs the default ones, ``nox --list`` names all, ``nox -s NAME -- ARGS`` passes ARGS on."""

from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"  # nox.project.dependency_groups
nox.options.sessions = ["lint", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
# Tests start processes of their own: more threads than cores would make them wait for each other.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}


def group(name: str) -> list[str]:
    """The requirements of a dependency group of pyproject.toml."""
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: errors, style, docstrings, formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def tests(session: nox.Session) -> None:
    """Tests, doctests and mypy in one environment, because torch is several gigabytes."""
    session.install("-e", ".[all]", *group("test"))
    session.run("mypy")
    session.run("pytest", *session.posargs, env=ENVIRONMENT)


@nox.session
def minimums(session: nox.Session) -> None:
    """The tests against the lowest versions that pyproject.toml admits."""
    lowest = [
        requirement.split("#")[0].replace(">=", "==")
        for requirement in [*PROJECT["project"]["dependencies"], "torchvision>=0.21", "scikit-learn>=1.5"]
    ]
    session.install("-e", ".[all]", *group("test"), *lowest)
    session.run("pytest", *session.posargs, env=ENVIRONMENT)


@nox.session
def third_party(session: nox.Session) -> None:
    """The loss override on LightningModules of other packages."""
    session.install("-e", ".[all]", *group("test"), *group("third_party"))
    session.run("pytest", "tests/third_party", *session.posargs, env=ENVIRONMENT)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks: ratios against torch and against the usual formulations, printed."""
    session.install("-e", ".[all]", *group("test"))
    for script in session.posargs or sorted(str(path) for path in Path("benchmarks").glob("*.py")):
        session.run("python", script, env=ENVIRONMENT)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheel, and check that the configs and the type marker are in it."""
    session.install("build")
    session.run("python", "-m", "build", "--outdir", session.create_tmp(), ".")
