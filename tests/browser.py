"""A headless Chromium, told what to do through two pipes: what is on a page some time after it was opened."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
)


class Browser:
    """A browser that takes commands of the DevTools protocol: JSON, each with a zero byte behind it."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number, self._rest = 0, b""

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        self._number += 1
        of_session = {} if session is None else {"sessionId": session}
        command = {"id": self._number, "method": method, "params": params, **of_session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            answer = json.loads(self._next())
            if answer.get("id") == self._number:
                return dict(answer["result"])

    def _next(self) -> bytes:
        while b"\0" not in self._rest:
            read = os.read(self._answers, 1 << 16)
            assert read, "the browser has ended"
            self._rest += read
        first, self._rest = self._rest.split(b"\0", 1)
        return first

    def text(self, url: str, *, until: str, seconds: float = 90.0) -> str:
        """Open a page, and return its text once it has `until`, or at the end of the time."""
        target = self.send("Target.createTarget", url=url)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        end, text = time.monotonic() + seconds, ""
        while until not in text and time.monotonic() < end:
            time.sleep(1)
            found = self.send("Runtime.evaluate", session, expression="document.body?.innerText ?? ''")
            text = str(found["result"].get("value", ""))
        return text

    def value(self, url: str, expression: str, *, width: int) -> Any:
        """Open a page in a window of a width, in pixels, and return what an expression of JavaScript is there."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", session, **size)
        self.send("Page.navigate", session, url=url)
        ready = (
            f"new Promise(done => document.readyState == 'complete' ? done() : onload = done).then(() => {expression})"
        )
        found = self.send("Runtime.evaluate", session, expression=ready, awaitPromise=True, returnByValue=True)
        return found["result"].get("value")


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser whose profile is in a folder, and end it."""
    (commands_end, commands), (answers, answers_end) = os.pipe(), os.pipe()
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands_end, answers_end)]  # above 3 and 4, where they go
    line = f'exec "$0" "$@" --remote-debugging-pipe 3<&{ends[0]} 4>&{ends[1]}'
    process = subprocess.Popen(
        ["bash", "-c", line, str(CHROMIUM), *_OPTIONS, f"--user-data-dir={folder}"],
        pass_fds=ends,
        stderr=subprocess.DEVNULL,
    )
    for end in (commands_end, answers_end, *ends):
        os.close(end)
    try:
        yield Browser(commands, answers)
    finally:
        process.terminate()
        process.wait(timeout=60)
        os.close(commands)
        os.close(answers)
