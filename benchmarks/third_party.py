"""How far the loss override in other packages deviates from float64 formulas: ``nox -s bench -- third_party``."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PACKAGES = ("torchgeo", "torch-uncertainty", "torchvision", "transformers", "chemprop", "lightly", "timm")


def main() -> None:
    """Run the tests that compare them, and print their table."""
    command = [sys.executable, "-m", "pytest", "tests/third_party", "-q"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    versions = [f"{name} {metadata.version(name)}" for name in (*PACKAGES, "segmentation-models-pytorch")]
    print(f"Relative deviation of the loss and of all gradients together; {', '.join(versions)}\n")
    print("\n".join(re.findall(r"^\|.*\|$", done.stdout, re.MULTILINE)))


if __name__ == "__main__":
    main()
