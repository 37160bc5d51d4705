"""Runs a benchmark, and writes what it prints into benchmarks/README.md, between the markers with its name.

python benchmarks/write_readme.py accuracy
python benchmarks/write_readme.py losses --one-thread      # with arguments of the benchmark
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
README = HERE / "README.md"


def as_markdown(output: str) -> str:
    """Return the output as part of the page: headings of level 4, and a block of code if it has no table."""
    output = output.strip()
    if not re.search(r"^\|[-| ]+\|$", output, re.MULTILINE):
        return f"```text\n{output}\n```"
    return re.sub(r"^##? ", "### ", output, flags=re.MULTILINE)


def replaced(document: str, name: str, content: str) -> str:
    """Return the document with ``content`` between the markers of ``name``.

    Raises:
        ValueError: if the document does not have these markers exactly once.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if document.count(begin) != 1 or document.count(end) != 1:
        raise ValueError(f"{README.name} must contain {begin} and {end} once")
    before, _, rest = document.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def main(arguments: list[str]) -> None:
    """Run the benchmark that is named first, with the other arguments, and write its output."""
    if not arguments:
        sys.exit(__doc__)
    name, *options = arguments
    script = HERE / f"{name}.py"
    document = README.read_text(encoding="utf-8")
    replaced(document, name, "")  # fails before the benchmark runs
    done = subprocess.run([sys.executable, str(script), *options], stdout=subprocess.PIPE, text=True, check=True)
    command = f"`python benchmarks/{' '.join([script.name, *options])}`"
    README.write_text(replaced(document, name, f"{command}:\n\n{as_markdown(done.stdout)}"), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
