"""A written page, and a real browser, where one is installed, spoken to over DevTools' pipe."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rsconvert import SwitchableModel, create_model, make_switchable
from rsconvert.study.report import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# A browser reads commands from its file descriptor 3 and answers on 4.
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
SEAL = {"--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"}


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, program: str, profile: Path) -> None:
        (theirs_in, mine_out), (mine_in, theirs_out) = os.pipe(), os.pipe()
        # Above 3 and 4, so that neither is overwritten before it has been copied.
        given = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        arguments = [program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", *SEAL]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, *map(str, given), *arguments], pass_fds=given, stderr=subprocess.DEVNULL
        )
        for end in (*given, theirs_in, theirs_out):
            os.close(end)
        self._in, self._out = os.fdopen(mine_in, "rb"), os.fdopen(mine_out, "wb", buffering=0)
        self._number, self._session, self._read, self.events = 0, None, b"", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; what happens meanwhile is kept in ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page: Path, width: int = 1200, height: int = 900, **emulation: Any) -> None:
        """Load a page and wait until it is there."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **(metrics | emulation))
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def run(self, script: str) -> Any:
        """Return the value of an expression on the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key such as ``ArrowLeft``."""
        codes = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9}
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._in.close()
        self._out.close()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            part = os.read(self._in.fileno(), 1 << 16)
            if not part:
                self.close()
                raise ConnectionError("it has ended")
            self._read += part
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path, and no package of PyPI ships one")
    try:
        browser = Browser(program, tmp_path_factory.mktemp("profile"))
    except OSError as error:  # Ubuntu's chromium-browser alone only tells how to install one
        pytest.skip(f"{program} does not start: {error}")
    yield browser
    browser.close()


NASTY = "</script><script>alert('&\"')</script>"


@dataclass(frozen=True)
class Written:
    """A page, the facts that ``write_report`` returned, and what it was made of."""

    path: Path
    facts: dict[str, Any]
    net: SwitchableModel
    other: SwitchableModel
    data: Path


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A network and a baseline on 18 smooth images of three classes, of which one has a name made to break a page."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for split, name in product(("train", "val"), ("a", "b<i>", "c&d")):
        (folder / split / name).mkdir(parents=True)
        for i in range(6):
            smooth = Image.fromarray(rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)).resize((75, 60))
            smooth.save(folder / split / name / f"{i}.png")
    (folder / "names.json").write_text(json.dumps({"a": NASTY, "b<i>": "bee", "c&d": "sea"}))
    torch.manual_seed(0)
    nets = [make_switchable(create_model("test_efficientnet", num_classes=3), (48, 32)) for _ in range(2)]
    facts = write_report(
        nets[0],
        folder,
        folder / "report.html",
        [48, 40, 32],
        baselines={"<other>": nets[1]},
        examples=5,
        seed=3,
        class_names=folder / "names.json",
        command="rsconvert report <net>",
        workers=0,
    )
    return Written(folder / "report.html", facts, *nets, folder)
