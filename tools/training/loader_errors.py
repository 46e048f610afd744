"""Errors of a loader's worker processes, without the page of text that torch wraps them in."""


def unwrap_worker_error(error: Exception) -> Exception:
    """The error as it was raised in the worker (OSError or ValueError, one line), an OSError for a worker that died,
    any other error as it is.
    """
    text = str(error)
    if text.startswith("DataLoader worker") and "\n" not in text.strip():
        return OSError(f"{text.strip()} Perhaps the memory was full: fewer workers need less")
    if not text.startswith("Caught ") or "\n" not in text:
        return error
    kind, _, what = text.strip().splitlines()[-1].partition(": ")
    is_about_files = kind.endswith(("OSError", "NotFoundError", "PermissionError"))
    return (OSError if is_about_files else ValueError)(what or kind)
