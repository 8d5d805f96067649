"""Look at the built documentation in a real browser: `make docs-check`.

Every page is opened at the width of a desk and of a telephone. On each of them nothing may be
written to the console, every picture must be there and have alternative text, every link must lead
somewhere, and the page may not scroll sideways: wide tables and code scroll inside their box. The
search must find `refine`. Where there is no chromium, only the links are looked at.
"""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

WIDTHS = {"telephone": 390, "desk": 1440}
SOUGHT = "refine"

LOOK = """
const page = document.documentElement, found = [];
for (const image of document.images) {
  if (!image.complete || !image.naturalWidth) found.push("no picture at " + image.src);
  const decoration = image.closest(".sphx-glr-thumbcontainer, .sidebar-brand, button");
  if (!image.alt.trim() && !decoration) found.push("no alternative text: " + image.src);
}
if (page.scrollWidth > page.clientWidth + 1) {
  found.push("scrolls sideways: " + page.scrollWidth + " in " + page.clientWidth);
}
const scrolls = (box) => box && (["auto", "scroll"].includes(getComputedStyle(box).overflowX)
  || scrolls(box.parentElement));
for (const wide of document.querySelectorAll("article table, article pre, article math")) {
  if (wide.getBoundingClientRect().right > page.clientWidth + 1 && !scrolls(wide)) {
    found.push("sticks out: " + wide.innerText.slice(0, 40));
  }
}
return found;
"""


class Page(HTMLParser):
    """The links of a page, and the places that links can lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to, and its name."""
        values = dict(attrs)
        self.places |= {values[key] or "" for key in ("id", "name") if key in values}
        link = values.get("href") if tag in ("a", "link") else values.get("src")
        if link:
            self.links.add(link)


def broken_links(folder: Path) -> Iterator[str]:
    """Links within the documentation that lead nowhere."""
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    for path, page in pages.items():
        for link in sorted(page.links):
            if "://" in link or link.startswith(("data:", "mailto:", "javascript:")):
                continue
            address, place = urldefrag(urljoin(path.relative_to(folder).as_posix(), link))
            target = folder / unquote(address.partition("?")[0])
            if not target.is_file():
                yield f"{path.relative_to(folder)}: there is no {link}"
            elif place and target in pages and unquote(place) not in pages[target].places:
                yield f"{path.relative_to(folder)}: there is no place {link}"


def browser() -> webdriver.Chrome | None:
    """Chromium without a window, if there is one on this machine."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = program
    return webdriver.Chrome(options=options, service=Service(driver))


def faults(chrome: webdriver.Chrome, address: str, names: list[str]) -> Iterator[str]:
    """What is wrong with the pages, as a person would see them."""
    for where, width in WIDTHS.items():
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for name in names:
            chrome.get(address + name)
            for said in chrome.get_log("browser"):
                yield f"{name}, {where}: the console says {said['message']}"
            for what in chrome.execute_script(LOOK):
                yield f"{name}, {where}: {what}"
    chrome.get(f"{address}search.html?q={SOUGHT}")
    results = ".search li a"
    WebDriverWait(chrome, 20).until(lambda c: c.find_elements(By.CSS_SELECTOR, results))
    found = [link.get_attribute("href") for link in chrome.find_elements(By.CSS_SELECTOR, results)]
    if not any("api/adapter" in (link or "") for link in found):
        yield f"the search for {SOUGHT!r} doesn't find the reference: {found[:5]}"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and keeps it to itself."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def check(folder: Path) -> list[str]:
    """Everything that is wrong with the documentation in a folder."""
    wrong = list(broken_links(folder))
    chrome = browser()
    if chrome is None:
        print("There is no chromium with its chromedriver here: only the links were looked at.")
        return wrong
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.html"))]
    names = [name for name in names if not name.startswith("_modules/")]
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        wrong += faults(chrome, f"http://127.0.0.1:{server.server_port}/", names)
    finally:
        chrome.quit()
        server.shutdown()
    return wrong


if __name__ == "__main__":
    found = check(Path(sys.argv[1]))
    print("\n".join(found) or "Every page is as it should be.")
    sys.exit(bool(found))
