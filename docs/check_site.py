"""Opens every page of the built site in a headless browser: `make check-docs`.

A page must render its heading, log no error, request nothing that is missing or from another host,
and fit into 400 pixels without scrolling sideways; the search must find `self_fuse`. Needs the
system's Chromium.
"""

import contextlib
import functools
import http.server
import pathlib
import shutil
import sys
import threading

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import sync_playwright

SITE = pathlib.Path(__file__).resolve().parent.parent / "site"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NARROW = {"width": 400, "height": 800}
WIDE = {"width": 1280, "height": 800}
_PATIENCE = 20_000  # milliseconds


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder):
    """Serves a folder on the loopback address; yields its address."""
    handler = functools.partial(_Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def watched(page, home):
    """Returns a list that fills with what goes wrong on a page."""
    faults = []
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((home, "data:", "blob:"))
            else faults.append(f"another host: {request.url}")
        ),
    )
    return faults


def check_page(page, address):
    """Yields what is wrong with how a page looks."""
    page.set_viewport_size(WIDE)
    page.goto(address)
    if not page.locator("h1").first.is_visible():
        yield "no heading is shown"
    page.set_viewport_size(NARROW)
    width = page.evaluate("document.documentElement.scrollWidth")
    if width > NARROW["width"]:
        yield f"{width} pixels wide on a screen of {NARROW['width']}"


def check_search(page, home):
    """Yields what is wrong with the search."""
    page.set_viewport_size(WIDE)
    page.goto(f"{home}/index.html")
    result = page.locator(".md-search-result__item", has_text="self_fuse").first
    try:
        page.get_by_label("Search", exact=True).first.click(timeout=_PATIENCE)
        page.keyboard.type("self_fuse")
        result.wait_for(timeout=_PATIENCE)
    except PlaywrightError as error:
        yield f"the search does not find self_fuse: {str(error).splitlines()[0]}"


def main():
    """Checks all pages; returns the exit code."""
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        print(f"Expected one of {', '.join(BROWSERS)}. Received: none. Install Chromium.")
        return 2
    pages = sorted(str(path.relative_to(SITE)) for path in SITE.rglob("*.html"))
    if not pages:
        print(f"Expected a site in {SITE.name}/. Received: nothing. Run make docs first.")
        return 2
    faults = {}
    with served(SITE) as home, sync_playwright() as playwright:
        options = {"executable_path": browser_path, "args": ["--no-sandbox"]}
        page = playwright.chromium.launch(**options).new_page()
        noticed = watched(page, home)
        for name in pages:
            noticed.clear()
            faults[name] = [*check_page(page, f"{home}/{name}"), *noticed]
        faults["search"] = list(check_search(page, home))
    for name, texts in faults.items():
        for text in texts:
            print(f"{name}: {text}")
    wrong = sum(map(bool, faults.values()))
    print(f"{len(faults) - wrong} passed, {wrong} failed")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
