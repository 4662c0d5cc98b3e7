"""Headless Chromium over the DevTools protocol, through a pipe: it takes a file's page as a reader does."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_DEADLINE_S = 20
_START_DEADLINE_S = 60


class NoAnswer(Exception):
    """The browser says nothing, or is gone."""


class Browser:
    """One page. errors: what its console and its scripts complained of. asked: every address that it asked for."""

    def __init__(self, profile: Path, width: int = 1400, height: int = 900) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-quic", f"--user-data-dir={profile}", f"--window-size={width},{height}",
        ]  # fmt: skip
        line = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, "chromium", str(CHROMIUM), *flags, "about:blank"],
            pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._id, self._answers, self._loaded = b"", 0, {}, False
        self._session: str | None = None
        self.errors: list[str] = []
        self.asked: list[str] = []
        try:
            targets = self._answer("Target.getTargets", within_s=_START_DEADLINE_S)["result"]["targetInfos"]
        except NoAnswer:
            self.close()
            raise
        pages = [t for t in targets if t["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._to)  # Chromium ends with its pipe
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        answer = self._answer(method, **parameters)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _answer(self, method: str, within_s: float = _DEADLINE_S, **parameters: Any) -> dict[str, Any]:
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        asked = self._id
        self._until(lambda: asked in self._answers, method, within_s)
        return self._answers.pop(asked)

    def open(self, path: Path, fragment: str = "") -> None:
        """The page, once all its scripts have run."""
        for address in (
            "data:,",
            path.resolve().as_uri() + fragment,
        ):  # the same page with another fragment is not loaded
            self._loaded = False
            self.call("Page.navigate", url=address)
            self._until(lambda: self._loaded, f"loading {address}")

    def js(self, expression: str) -> Any:
        """Its value, once it is there if it is a promise."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until it is true. A page that is just left for another one answers with an error, or throws."""
        end = time.monotonic() + _DEADLINE_S
        while True:
            answer = self._answer("Runtime.evaluate", expression=expression, returnByValue=True)
            if answer.get("result", {}).get("result", {}).get("value") is True:
                return
            assert time.monotonic() < end, f"never true: {expression}: {answer}; the console says {self.errors}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38}.get(key, ord(key.upper()[0]))
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **more)

    def write(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def point(self, selector: str, *, click: bool) -> None:
        """Move the mouse to the first element that fits, and press it."""
        found = f"document.querySelector({json.dumps(selector)})"
        at = self.js(
            f"(() => {{ const e = {found}; e.scrollIntoView({{block: 'center'}}); const r = e.getClientRects()[0]; "
            "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        place = {"x": at[0], "y": at[1]}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what is in sight, or of the whole page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _until(self, there: Any, what: str, within_s: float = _DEADLINE_S) -> None:
        end = time.monotonic() + within_s
        while not there():
            if not select.select([self._from], [], [], max(0, end - time.monotonic()))[0]:
                raise NoAnswer(f"{what}: nothing in {within_s:.0f} s")
            data = os.read(self._from, 1 << 20)
            if not data:
                raise NoAnswer(f"{what}: the browser has ended")
            *messages, self._buffer = (self._buffer + data).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers[message["id"]] = message
            return
        given = message.get("params", {})
        match message["method"]:
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.asked.append(given["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(json.dumps(given["exceptionDetails"]))
            case "Log.entryAdded":
                self.errors.append(given["entry"]["text"])
            case "Runtime.consoleAPICalled" if given["type"] in ("error", "warning", "assert"):
                self.errors.append(json.dumps(given["args"]))
