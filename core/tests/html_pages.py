"""Reading the pages that we make, as a strict parser and as a browser does."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EVIL = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>\u202e\x00'


class Page(HTMLParser):
    """A page, read as strictly as our own markup allows: every element is closed in its place."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words, self.raw = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.raw if self.open and self.open[-1] in ("script", "style") else self.words).append(
            data
        )

    @property
    def text(self):
        return " ".join("".join(f" {w} " for w in self.words).split())

    def all(self, tag, **wanted):
        return [a for t, a in self.tags if t == tag and wanted.items() <= a.items()]


def browse(path, folder, fragment=""):
    """The page after its script ran in a real browser, and what the browser complained of."""
    ran = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={folder / 'profile'}", "--dump-dom",
         f"{path.as_uri()}{fragment}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return Page(ran.stdout.partition(">")[2]), ran.stderr
