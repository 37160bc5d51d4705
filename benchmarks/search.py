"""How long the default search on the long-tailed digits takes.

python benchmarks/search.py [FOLDER]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from polyloss_lightning.search.progress import duration


def main(folder: Path) -> None:
    """Run the command of the README in a folder, and print its answer and the time."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "polyloss_lightning", "search", "--config", "digits_longtail"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder) as run:
        for line in run.stdout or ():
            print(line, end="", flush=True, file=sys.stderr if line.startswith("[") else sys.stdout)
    if run.returncode:
        sys.exit(run.returncode)
    print(f"\n{duration(time.perf_counter() - began)} on {os.cpu_count()} cores")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
