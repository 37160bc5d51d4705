"""The networks of timm from the command line, by the commands of docs/howto/own-images.md."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from polyloss_lightning.cli import main

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "own-images.md").read_text(encoding="utf-8")
BLOCKS = [block.replace("\\\n", "") for block in re.findall(r"```text\n(polyloss .*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("command", BLOCKS, ids=["class_path", "own_class"])
def test_a_network_of_timm_trains(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r":caption: networks.py\n(.*?)```", PAGE, re.DOTALL)
    Path("networks.py").write_text(code)
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        for number in range(4):
            Image.effect_noise((32, 32), 64).save(Path("photos", name, f"{number}.png"))
    quick = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu", "--data.image_size=32"]
    main([*shlex.split(command)[1:], *quick])
    assert "val/balanced_accuracy" in capsys.readouterr().out
