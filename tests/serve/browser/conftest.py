"""A real Chromium without a window, a real `genie-gym serve`, and a person at the page."""

import io
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genie_gym.evaluation.objects import find_objects

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = Path("out/browser")
PIXELS = """(canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return [canvas.height, canvas.width, ...data];
}"""


@pytest.fixture(scope="session")
def chromium():
    """The browser; without one its tests are skipped."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install 'genie-gym[browser]'"
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium on the path. Debian's package is called chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Server:
    """A process of `genie-gym serve`, which can be started again on the same port."""

    def __init__(self, *flags):
        self.flags, self.port = flags, 0
        self.start()

    def start(self):
        """Start it and wait until it takes connections."""
        command = [sys.executable, "-m", "genie_gym.cli", "serve", "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*command, "--world", "pong", *self.flags], stdout=subprocess.PIPE, text=True
        )
        for line in self._process.stdout:
            if found := re.search(r"at (http://[\d.]+:(\d+)/)", line):
                self.url, self.port = found[1], int(found[2])
                return
        raise AssertionError(f"the server ended with {self._process.wait()}")

    def stop(self):
        """End it as a service manager does."""
        self._process.terminate()
        assert self._process.wait(timeout=30) == 0


@contextmanager
def _serving(*flags):
    server = Server(*flags)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def pong(chromium, policy_folder):
    """A server of the bundled world that most tests share."""
    with _serving("--policy", str(policy_folder), "--budget-ms", "50") as server:
        yield server


@pytest.fixture
def serving(chromium):
    """Return a context manager that serves the bundled world with flags of a test's own."""
    return _serving


class Person:
    """Somebody at the page: looks at the screen, presses keys."""

    def __init__(self, page):
        self.page = page

    def open(self, url):
        """Open the page and wait for its game."""
        self.page.goto(url)
        self.wait_connected()

    def wait(self, condition):
        """Wait until a function returns something true."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline
            self.page.wait_for_timeout(20)

    def wait_text(self, name, text):
        """Wait until an element of the page says so."""
        self.wait(lambda: self.read(name) == text)

    def wait_connected(self):
        """Wait for a game that shows its first frame."""
        self.page.wait_for_selector("#connection[data-state=open]")
        self.wait_text("index", "0")

    def read(self, name):
        """Return a text of the page."""
        return self.page.locator(f"#{name}").text_content()

    @property
    def step(self):
        """Number of the step that is shown."""
        return int(self.read("index"))

    def wait_steps(self, count):
        """Wait until so many steps more were shown."""
        wanted = self.step + count
        self.wait(lambda: self.step >= wanted)

    def take_steps(self, count):
        """Press the key of a single step so many times."""
        for _ in range(count):
            wanted = f"{self.step + 1}"
            self.page.keyboard.press(".")
            self.wait_text("index", wanted)

    def pixels(self, canvas="#imagined .frame"):
        """Return what a canvas holds, (H, W, 4)."""
        height, width, *values = self.page.locator(canvas).evaluate(PIXELS)
        return np.array(values, np.uint8).reshape(height, width, 4)

    def frame(self):
        """Return the imagined frame, (H, W, 3)."""
        return self.pixels()[..., :3]

    def paddle(self):
        """Return the row of the own paddle."""
        return float(find_objects(self.frame()[None], "Pong").paddles["own"][0])

    def shoot(self, name):
        """Write a picture of what is seen."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")

    def scrolls_sideways(self):
        """Return whether the page is wider than the screen."""
        return self.page.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.fixture
def visit(chromium):
    """Return a function that sits a person down at a fresh page.

    When the test ends, the page must have asked nobody but its server, and broken nowhere.
    """
    contexts, addresses, faults = [], [], []

    def sit_down(**options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: addresses.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        return Person(page)

    yield sit_down
    for context in contexts:
        context.close()
    assert not faults
    assert all(re.match(r"(http://127\.0\.0\.1:\d+/|blob:|data:)", one) for one in addresses)


@pytest.fixture
def person(visit, pong):
    """A person at the page of the shared server."""
    person = visit()
    person.open(pong.url)
    return person


@pytest.fixture
def drawing():
    """A drawn Pong: paddles at 30 % and 70 % of the height, the ball between them; PNG bytes."""
    paper = np.full((300, 400), 250, np.uint8)
    paper[60:120, 20:30] = 10
    paper[180:240, 370:380] = 10
    paper[145:157, 194:206] = 10
    file = io.BytesIO()
    Image.fromarray(paper).save(file, "PNG")
    return file.getvalue()
