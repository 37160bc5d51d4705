"""Every block of code in the pages of the documentation runs, in the order of the page and in a folder of its own.

Python continues in one namespace per page. A block with a caption is also saved as a file of that name. The commands of
bash blocks run in this process where possible, and training is shortened. A block of any other language must be text.
"""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from polyloss_lightning.cli import main

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(
    r"^(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<options>(?::[a-z-]+:[^\n]*\n)*)(?P<code>.*?)^(?P=fence)$", re.M | re.S
)
SHORT = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=2")
MARKUP = {"text", "{eval-rst}", "{image}", "{include}", "{literalinclude}", "{note}", "{toctree}", "{warning}"}


def blocks(path):
    """``(language, caption, code)`` of each block."""
    for match in FENCE.finditer(path.read_text(encoding="utf-8")):
        language = match["info"].removeprefix("{code-block}").split()[0]
        caption = re.search(r":caption: (\S+)", match["options"])
        yield language, caption and caption[1], match["code"]


def is_run(path):
    return any(language not in MARKUP for language, _, _ in blocks(path))


BUILT = {"build", "generated"}
PAGES = [path for path in sorted(DOCS.rglob("*.md")) if not BUILT & set(path.relative_to(DOCS).parts) and is_run(path)]


def as_case(page):
    name = page.relative_to(DOCS).with_suffix("").as_posix()
    # This page trains in several processes, several times.
    return pytest.param(page, id=name, marks=[pytest.mark.slow] if name == "howto/several-gpus" else [])


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:No seed found")  # as the reader sees them
@pytest.mark.parametrize("page", [as_case(page) for page in PAGES])
def test_code_of_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        "polyloss_lightning.callbacks.monitor.run_files.RunFiles.draw", lambda *_: None
    )  # it takes seconds
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where dataclasses and pickle look for what a page defines
    code_of_commands = [code for language, _, code in blocks(page) if language == "bash"]
    for language, caption, code in blocks(page):
        if caption:
            Path(caption).write_text(code, encoding="utf-8")
        if language == "python":
            own = {"__name__": Path(caption).stem} if caption else vars(module)
            exec(compile(code, caption or str(page), "exec"), own)
        elif language == "yaml":
            assert any(caption in commands for commands in code_of_commands), f"no command uses {caption}"
        elif language == "bash" and not caption:
            for line in code.replace("\\\n", " ").splitlines():
                run(shlex.split(line, comments=True), monkeypatch)
        else:
            assert caption or language in MARKUP, f"blocks of {language} are not run"


def run(command, monkeypatch):
    """Run a line of a bash block; installing is left to the tests of the built package."""
    if not command or "install" in command[:4]:
        return
    command = [newest_checkpoint() if word == "CHECKPOINT" else word for word in command]
    if command[0] == "polyloss":
        shorter = SHORT if command[1] == "fit" else ()
        monkeypatch.setattr(sys, "argv", [*command, *shorter])
        if "--print_config" in command:
            with pytest.raises(SystemExit, match=r"^0$"):
                main()
        else:
            main()
    elif command[0] == "python":
        monkeypatch.setattr(sys, "argv", command[1:])
        runpy.run_path(command[1], run_name="__main__")
    elif command[0] == "sbatch":  # a cluster of this machine alone
        for line in Path(command[1]).read_text(encoding="utf-8").splitlines():
            run(shlex.split(line.removeprefix("srun "), comments=True), monkeypatch)
    else:
        assert command[0] == "torchrun"
        command = [sys.executable, "-m", "torch.distributed.run", *command[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def newest_checkpoint():
    return str(max(Path.cwd().rglob("*.ckpt"), key=lambda path: path.stat().st_mtime))
