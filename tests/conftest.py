"""What holds for every test: no gates, preloads or make variables of the caller, no display, repeatable examples."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

for name in set(os.environ) - {"HAKMEM_FLEETBENCH"}:  # where tests find published data
    if name.startswith(("HAKMEM_", "MALLOC_", "MAKE")) or name in ("LD_PRELOAD", "GLIBC_TUNABLES", "MFLAGS", "PROFILE"):
        del os.environ[name]
os.environ["MPLBACKEND"] = "Agg"
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
# Tests take turns among themselves: what else is measured on this host neither waits for them nor keeps them waiting.
LOCKS = tempfile.TemporaryDirectory(prefix="hakmem-locks-")
os.environ["WORKBENCH_LOCK_DIR"] = LOCKS.name

# No deadline: the time a test takes says nothing on a shared machine.
settings.register_profile("hakmem", deadline=None, derandomize=True)
settings.load_profile("hakmem")


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    """Start headless Chromium; every request of a page stands in its "performance" log, its errors in "browser"."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium: sudo apt-get install chromium chromium-driver")
    options = ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    # The sandbox cannot start as root, nor in most containers.
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "no-first-run",
        "hide-scrollbars",
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing beyond this machine
    ):
        options.add_argument(f"--{flag}")
    # With both paths given, nothing is looked up or downloaded.
    chrome = Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()
