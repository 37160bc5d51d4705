"""The files around the code agree with each other: version, sessions, supported versions of Python."""

import re
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import polyloss_lightning

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8"))


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_version_has_one_source():
    assert metadata.version("polyloss-lightning") == polyloss_lightning.__version__
    assert yaml.safe_load(text("CITATION.cff"))["version"] == polyloss_lightning.__version__
    assert polyloss_lightning.__version__ in text("CHANGELOG.md")


@pytest.mark.parametrize("path", [".github/workflows/checks.yml", "CONTRIBUTING.md"])
def test_every_session_that_is_mentioned_exists(path):
    sessions = re.findall(r"^def (\w+)\(session", text("noxfile.py"), re.MULTILINE)
    mentioned = re.findall(r"nox -s (\w+)", text(path))
    assert mentioned
    assert set(mentioned) <= set(sessions)


def test_supported_versions_of_python_agree():
    (lowest,) = re.findall(r'requires-python = ">=([\d.]+)"', text("pyproject.toml"))
    classifiers = re.findall(r"Programming Language :: Python :: (3\.\d+)", text("pyproject.toml"))
    workflow = WORKFLOW["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert classifiers[0] == workflow[0] == lowest
    assert set(classifiers) <= set(workflow)
    assert str(workflow).replace("'", '"') in text("noxfile.py")
    assert f"Python {lowest} or newer" in text("README.md")


def test_commit_hooks_run_the_tools_of_the_environment():
    hooks = [hook for repo in yaml.safe_load(text(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]]
    assert {hook["entry"].split()[0] for hook in hooks} == {"ruff", "mypy"}
    assert all(hook["language"] == "system" for hook in hooks)


def test_public_modules_are_documented_and_offered_by_tab_completion():
    files = (ROOT / "polyloss_lightning").glob("[!_]*")
    modules = {path.stem for path in files if path.suffix == ".py" or (path / "__init__.py").is_file()}
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    assert set(re.findall(r"auto\w+:: polyloss_lightning\.(\w+)", pages)) == modules
    offered = set(dir(polyloss_lightning))
    assert offered == modules - {"cli"} | set(polyloss_lightning.__all__) | {"__version__"}
    assert all(hasattr(polyloss_lightning, name) for name in offered)


def test_every_shipped_config_is_documented():
    (table,) = re.findall(r"## Shipped configs\n(.*?)\n## ", text("docs/command.md"), re.DOTALL)
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == {path.stem for path in (ROOT / "configs").glob("*.yaml")}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"polyloss_lightning.*has no attribute.*Poly2"):
        polyloss_lightning.Poly2  # noqa: B018
