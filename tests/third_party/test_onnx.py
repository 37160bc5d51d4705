"""The example of an export, with ONNX."""

import importlib.util
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "export.py"


def test_the_network_with_its_loss_becomes_onnx(capsys):
    spec = importlib.util.spec_from_file_location("export", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ONNX")]
    assert float(line.split()[-1]) < 1e-5
