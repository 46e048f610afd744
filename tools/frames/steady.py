"""Scores of a video's pixels kept steady where nothing moves."""

import cv2
import numpy as np

CELL = 4  # pixels: motion is seen on areas of 4 x 4, whose mean hides most of a camera's noise
_STILL, _MOVING = 5.0, 12.0  # change of brightness (0..255) that is taken for noise, and that is motion for certain
_REACH = 2  # cells around a moving one that count as moving, too
_MEMORY = 0.86  # how much of the old a still place keeps from frame to frame


class SteadyScores:
    """Averages each pixel's scores over time, the longer the less it changes.

    Every frame is compared with a picture that is averaged just as the scores are, so the scores of a place are
    forgotten as soon as it looks different, also after a slow change. A cut, or frames of another size, start it anew.
    """

    def __init__(self) -> None:
        self._scores: np.ndarray | None = None
        self._seen: np.ndarray | None = None

    def start_over(self) -> None:
        """Forgets what came before: the next frame begins another video."""
        self._scores = self._seen = None

    def __call__(self, picture: np.ndarray, scores: np.ndarray, *, cell: int = CELL) -> np.ndarray:
        """picture [H, W, 3] uint8 RGB, scores [H, W] float32 -> the scores [H, W] made steady.

        cell: the side of the areas on which motion is seen, in pixels of `picture`, which may have been shrunk.
        """
        height, width = picture.shape[:2]
        rows, columns = max(1, height // cell), max(1, width // cell)
        # Whole cells alone: areas that are cut askew take three times as long.
        whole = picture[: min(height, rows * cell), : min(width, columns * cell)]
        view = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
        before = None if self._scores is None or self._seen is None else (self._scores.shape, self._seen.shape)
        if self._scores is None or self._seen is None or before != (scores.shape, view.shape):
            self._scores, self._seen = scores.astype(np.float32), view
            return self._scores
        news = view - self._seen
        red, green, blue = cv2.split(np.abs(news))
        change = cv2.blur(cv2.max(cv2.max(red, green), blue), (3, 3))
        moving = cv2.dilate(change, np.ones((2 * _REACH + 1, 2 * _REACH + 1), np.uint8))
        kept = np.clip((_MOVING - moving) * (_MEMORY / (_MOVING - _STILL)), 0, _MEMORY)  # of what is old
        self._seen = view - cv2.merge([kept] * 3) * news
        self._scores = scores + cv2.resize(kept, (width, height)) * (self._scores - scores)
        return self._scores
