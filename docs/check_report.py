"""Looks at the report of a search in headless Chromium: ``python docs/check_report.py [SCREENSHOTS]``.

The report is that of a search with numbers made up. It is opened at 400 and 1400 pixels in the light and the dark
theme. It must not scroll horizontally, write to the console or load anything, and the labels of a figure must neither
overlap nor be cut off. With a folder, a screenshot of each is saved there.
"""

import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Literal, NamedTuple

from playwright.sync_api import Page, sync_playwright

from polyloss_lightning.search import Setting
from polyloss_lightning.search.engine import run_search
from polyloss_lightning.search.fit import Fitted
from polyloss_lightning.search.plan import Plan
from polyloss_lightning.search.report import write_report
from polyloss_lightning.search.storage import Location
from polyloss_lightning.search.worker import Job

WIDTHS = (400, 1400)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
CLASSES, EPOCHS = 10, 20
FAILS = 8.0  # the epsilon whose runs fail
PROBLEMS = """() => {
    const problems = [];
    if (document.documentElement.scrollWidth > innerWidth)
        problems.push(`scrolls horizontally: ${document.documentElement.scrollWidth} pixels`);
    for (const svg of document.querySelectorAll('svg')) {
        if (!svg.getAttribute('aria-label')) problems.push('a figure has no text');
        const frame = svg.getBoundingClientRect();
        const boxes = [...svg.querySelectorAll('g[id*="-text_"]')]
            .filter(label => label.querySelector('path, use')).map(label => label.getBoundingClientRect());
        for (const box of boxes)
            if (box.left < frame.left - 1 || box.right > frame.right + 1
                    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
                problems.push(`a label is cut off in: ${svg.getAttribute('aria-label').slice(0, 60)}`);
        boxes.forEach((a, i) => boxes.slice(i + 1).forEach(b => {
            const overlap = Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
            if (overlap) problems.push(`labels overlap in: ${svg.getAttribute('aria-label').slice(0, 60)}`);
        }));
    }
    return problems;
}"""


class MadeUp(NamedTuple):
    """A run with the metrics of a training that did not take place."""

    epsilon: float
    seed: int

    def run(self, *, test: bool) -> Fitted:
        """Make up all metrics that the report shows."""
        noise = random.Random(f"{self.epsilon} {self.seed}").gauss(0, 0.01)
        value = 0.8 + 0.01 * self.epsilon + noise
        metrics = {"val/balanced_accuracy": value} | ({"test/balanced_accuracy": value - 0.01} if test else {})
        for part in ("val", "test"):
            metrics[f"{part}/calibration_error"] = 0.05 + abs(noise)
            for k in range(CLASSES):
                metrics[f"{part}/recall_class/{k}"] = value - 0.04 * k
                metrics[f"{part}/poly/pt_class/{k}"] = value - 0.05 * k + 0.01 * self.epsilon
        growth = [1 - 0.8 ** (epoch + 1) for epoch in range(EPOCHS)]
        history = {
            "val/balanced_accuracy": [value * part for part in growth],
            "train/poly/first_term_share": [(0.5 + 0.05 * self.epsilon) * part for part in growth],
            **{
                f"train/poly/term_{j}": [(self.epsilon * (j == 1) + 1 / j) * (1.3 - part) for part in growth]
                for j in (1, 2, 3)
            },
            "val/calibration_error": [0.2 - 0.1 * part for part in growth],
            "train/poly/tail": [0.2 * (1.3 - part) for part in growth],
        }
        return Fitted(metrics, history, [100 / (k + 1) for k in range(CLASSES)])


def objective(epsilon: float, seed: int) -> MadeUp:
    """Make up a run; those of one setting fail."""
    if epsilon == FAILS:
        raise MemoryError("out of memory")
    return MadeUp(epsilon, seed)


def make_report(folder: Path) -> Path:
    """Run a search, and return the path of its page."""
    epsilons = (0.0, -1.0, -0.5, 1.0, 2.0, 4.0, FAILS)
    controls = tuple(f"epsilon 0, learning rate x {factor}" for factor in (0.5, 2, 3))
    plan = Plan(
        (
            *(Setting(f"epsilon {e:g}", e, "" if e else "cross-entropy", "epsilon", e) for e in epsilons),
            Setting("loss_fn=Poly1FocalLoss(gamma=2), epsilon -1 to 2", 0.6),
            *(
                Setting(name, 0.1 * index, f"cross-entropy{name.removeprefix('epsilon 0')}")
                for index, name in enumerate(controls)
            ),
        ),
        "epsilon 0",
        (controls,),
        monitor="val/balanced_accuracy",
        notes=("the config moves epsilon: settings with one epsilon, or none, train without its EpsilonScheduler",),
        command="polyloss search --config digits_longtail --vary model.init_args.loss_fn.init_args.gamma=0,1,2",
    )
    run_search(Job(objective, plan, Location(folder), 10), workers=1, in_process=True, write=lambda line: None)
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
