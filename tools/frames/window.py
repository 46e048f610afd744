"""A window on the screen, where there is one: OpenCV ends the whole process if it is asked for one in vain."""

import os
import subprocess
import sys
from types import TracebackType
from typing import Self

import cv2
import numpy as np

_QUIT_KEYS = (ord("q"), 27)  # 27: Escape
_LARGEST = (1280, 800)  # (width, height) on the screen to begin with; the user may drag it larger
_PROBE = "import cv2; cv2.namedWindow('probe', cv2.WINDOW_NORMAL); cv2.waitKey(1); cv2.destroyAllWindows()"
_PROBE_SECONDS = 30


def why_no_window() -> str | None:
    """Why no window can be opened here, in a few words, or None if one can: another process tries it first."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display"
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "the display does not answer"
    return None if done.returncode == 0 else "OpenCV cannot open one on this display"


class Window:
    """Shows pictures until it is closed or q or Escape is pressed. Make one only where `why_no_window` gives None."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._shown:
            cv2.destroyWindow(self.title)

    def show(self, picture: np.ndarray, *, wait: bool = False) -> bool:
        """Shows a picture [H, W, 3] uint8 RGB, waiting for a key if asked; False once the user has had enough."""
        if not self._shown:
            self._open(picture.shape[0], picture.shape[1])
        cv2.imshow(self.title, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        while True:
            key = cv2.waitKey(50 if wait else 1) & 0xFF
            if key in _QUIT_KEYS or not self._is_open():
                self._shown = self._is_open()
                return False
            if not wait or key != 0xFF:
                return True

    def _open(self, height: int, width: int) -> None:
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")  # OpenCV's Qt finds no fonts and needs none
        cv2.namedWindow(self.title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        shrink = min(1.0, _LARGEST[0] / width, _LARGEST[1] / height)
        cv2.resizeWindow(self.title, max(1, round(width * shrink)), max(1, round(height * shrink)))
        self._shown = True

    def _is_open(self) -> bool:
        try:
            return bool(cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1)
        except cv2.error:  # some back ends forget a window that was closed
            return False
