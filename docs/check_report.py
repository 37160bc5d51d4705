"""Looks at the report of a search in headless Chromium: ``python docs/check_report.py [SCREENSHOTS]``.

The report is that of a search with numbers made up. It is opened at 400 and 1400 pixels in the light and the dark
theme. It must not scroll horizontally, write to the console or load anything, and no two labels of a figure may
overlap. With a folder, a screenshot of each is saved there.
"""

import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, sync_playwright

from polyloss_lightning.search import Setting, search
from polyloss_lightning.search.report import write_report
from polyloss_lightning.search.storage import Location

WIDTHS = (400, 1400)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
PROBLEMS = """() => {
    const problems = [];
    if (document.documentElement.scrollWidth > innerWidth)
        problems.push(`scrolls horizontally: ${document.documentElement.scrollWidth} pixels`);
    for (const svg of document.querySelectorAll('svg')) {
        if (!svg.getAttribute('aria-label')) problems.push('a figure has no text');
        const boxes = [...svg.querySelectorAll('g[id*="-text_"]')]
            .filter(label => label.querySelector('path, use')).map(label => label.getBoundingClientRect());
        boxes.forEach((a, i) => boxes.slice(i + 1).forEach(b => {
            const overlap = Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
            if (overlap) problems.push(`labels overlap in: ${svg.getAttribute('aria-label').slice(0, 60)}`);
        }));
    }
    return problems;
}"""


def objective(epsilon: float, seed: int) -> dict[str, float]:
    """Make up the metrics of a run."""
    noise = random.Random(f"{epsilon} {seed}").gauss(0, 0.01)
    return {
        "val/balanced_accuracy": 0.8 + 0.01 * epsilon + noise,
        "test/balanced_accuracy": 0.79 + 0.01 * epsilon + noise,
    }


def make_report(folder: Path) -> Path:
    """Run a search, and return the path of its page."""
    settings = [Setting(f"epsilon {e:g}", e, "", "epsilon", e) for e in (0.0, -1.0, -0.5, 1.0, 2.0, 4.0)]
    settings.append(Setting("epsilon 0, learning rate x 0.5", 0.1))
    search(
        objective,
        settings,
        baseline="epsilon 0",
        controls=[["epsilon 0, learning rate x 0.5"]],
        monitor="val/balanced_accuracy",
        study=folder,
        write=lambda line: None,
    )
    return write_report(Location(folder))[0]


def problems_of(page: Path, screenshots: Path | None) -> list[str]:
    """Open ``page`` in every width and theme, and return what is wrong."""
    problems: list[str] = []
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in WIDTHS:
            for scheme in SCHEMES:
                tab: Page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                where = f"{width} pixels, {scheme}: "
                messages: list[str] = []
                requests: list[str] = []
                tab.on("console", lambda message, seen=messages: seen.append(message.text))
                tab.on("pageerror", lambda error, seen=messages: seen.append(str(error)))
                tab.on("request", lambda request, seen=requests: seen.append(request.url))
                tab.goto(page.resolve().as_uri())
                problems += [where + problem for problem in [*messages, *tab.evaluate(PROBLEMS)]]
                problems += [f"{where}loads {url}" for url in requests if not url.startswith(("file:", "data:"))]
                if screenshots:
                    screenshots.mkdir(parents=True, exist_ok=True)
                    tab.screenshot(path=screenshots / f"report-{width}-{scheme}.png", full_page=True)
                tab.close()
        browser.close()
    return problems


def main(screenshots: Path | None = None) -> int:
    """Print every problem of the page, and return how many there are."""
    with tempfile.TemporaryDirectory() as folder:
        problems = problems_of(make_report(Path(folder) / "made_up"), screenshots)
    print(*problems, f"{len(problems)} problems", sep="\n")
    return len(problems)


if __name__ == "__main__":
    sys.exit(min(main(*map(Path, sys.argv[1:])), 1))
