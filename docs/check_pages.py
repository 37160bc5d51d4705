"""Looks at the built pages in headless Chromium: ``python docs/check_pages.py docs/build/html [SCREENSHOTS]``.

Every page is opened at 400 and 1400 pixels in the light and the dark theme. It must not scroll horizontally, write to
the console, or load anything from another server. At 1400 pixels, code must fit without scrolling. Images must load,
and links must lead to an existing page and anchor. The search must find a name of the API. With a second folder a
screenshot of each page is saved there.
"""

import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urldefrag

from playwright.sync_api import Browser, Page, sync_playwright

WIDTHS = (400, 1400)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SEARCHED = "Poly1CrossEntropyLoss"
CONTENT = """() => ({
    links: [...document.querySelectorAll('a[href]')].map(link => link.href),
    anchors: [...document.querySelectorAll('[id]')].map(element => element.id),
    broken: [...document.images].filter(image => !image.naturalWidth).map(image => image.src),
    unlabelled: [...document.images].filter(image => !image.alt).map(image => image.src),
})"""
# Elements that stick out of the window, unless something around them scrolls on its own.
STICKING_OUT = """() => {
    if (document.documentElement.scrollWidth <= innerWidth) return [];
    const scrolls = element => element && element !== document.body &&
        (getComputedStyle(element).overflowX !== 'visible' || scrolls(element.parentElement));
    return [...document.querySelectorAll('article *')]
        .filter(element => element.getBoundingClientRect().right > innerWidth + 1 && !scrolls(element.parentElement))
        .map(element => `${element.tagName} ${element.textContent.slice(0, 60)}`).slice(0, 3)
        .concat(`page is ${document.documentElement.scrollWidth} wide`);
}"""


SOURCE = ("api/", "examples")  # pages with lines as long as those of the source
# Code that has to be scrolled although the window is wide.
# Not what commands print, which scrolls.
CODE_TOO_WIDE = """() => [...document.querySelectorAll('article :not(.highlight-text) > .highlight pre')]
    .filter(element => element.scrollWidth > element.clientWidth + 1)
    .map(element => element.textContent.split('\\n').reduce((a, b) => a.length < b.length ? b : a).trim())"""


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on the loopback device, and give the address of the server."""
    handler = functools.partial(_Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Site:
    """The built pages in one browser; collects the problems that it finds."""

    def __init__(self, folder: Path, address: str, browser: Browser, screenshots: Path | None) -> None:
        self.address, self.browser, self.screenshots = address, browser, screenshots
        self.pages = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.html"))]
        self.problems: list[str] = []
        self.links: dict[str, set[str]] = {}
        self.anchors: dict[str, set[str]] = {}

    def look(self, width: int) -> None:
        """Open every page in a window of ``width`` pixels, in each colour scheme."""
        context = self.browser.new_context(viewport={"width": width, "height": 900})
        tab = context.new_page()
        here = ""
        tab.on("console", lambda message: self._report(here, f"console: {message.text}"))
        tab.on("pageerror", lambda error: self._report(here, f"script: {error}"))
        tab.on("request", lambda request: self._check_request(here, request.url))
        for name in self.pages:
            here = f"{name} ({width} pixels)"
            tab.goto(self.address + name, wait_until="load")
            content = tab.evaluate(CONTENT)
            self.links[name], self.anchors[name] = set(content["links"]), set(content["anchors"])
            for problem in ("broken", "unlabelled"):
                for image in content[problem]:
                    self._report(here, f"{problem} image {image}")
            if width == max(WIDTHS) and not name.startswith(SOURCE):
                for line in tab.evaluate(CODE_TOO_WIDE):
                    self._report(here, f"line of code is too long: {line}")
            backgrounds = set()
            for scheme in SCHEMES:
                tab.emulate_media(color_scheme=scheme)
                backgrounds.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
                for element in tab.evaluate(STICKING_OUT):
                    self._report(here, f"horizontal scroll, {scheme}: {element}")
                if self.screenshots:
                    file = f"{name.removesuffix('.html').replace('/', '-')}-{width}-{scheme}.png"
                    tab.screenshot(path=self.screenshots / file, full_page=True)
            if len(backgrounds) < len(SCHEMES):
                self._report(here, f"the themes share a background: {backgrounds}")
        here = f"search ({width} pixels)"
        self._search(tab, here)
        context.close()

    def check_links(self) -> None:
        """Check that each link within the site has a page and an anchor at its other end."""
        for name, links in self.links.items():
            for link in sorted(link for link in links if link.startswith(self.address)):
                url, anchor = urldefrag(unquote(link).removeprefix(self.address))
                target = url.split("?")[0] or "index.html"
                if target.endswith(".html"):
                    if target not in self.anchors:
                        self._report(name, f"no such page: {target}")
                    elif anchor and anchor not in self.anchors[target]:
                        self._report(name, f"no such anchor: {target}#{anchor}")

    def _search(self, tab: Page, here: str) -> None:
        tab.goto(f"{self.address}search.html?q={SEARCHED}")
        try:
            tab.wait_for_selector("#search-results li a", timeout=15_000)
        except Exception as error:  # a time-out, with the state of the page in its message
            self._report(here, f"{SEARCHED} was not found: {error}")

    def _check_request(self, here: str, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self._report(here, f"loads {url}")

    def _report(self, here: str, problem: str) -> None:
        self.problems.append(f"{here}: {problem}")


def main(folder: Path, screenshots: Path | None = None) -> int:
    """Check the pages in ``folder``, print every problem, and return how many there are."""
    if screenshots:
        screenshots.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with served(folder) as address, sync_playwright() as playwright:
        # Without a system browser, the one that `playwright install chromium` has downloaded.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        site = Site(folder, address, browser, screenshots)
        for width in WIDTHS:
            site.look(width)
        site.check_links()
        browser.close()
    problems = list(dict.fromkeys(site.problems))
    print(*problems, f"{len(site.pages)} pages, {len(problems)} problems", sep="\n")
    return len(problems)


if __name__ == "__main__":
    sys.exit(min(main(*map(Path, sys.argv[1:])), 1))
