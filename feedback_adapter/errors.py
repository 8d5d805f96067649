"""Every mistake that a user can make has one of these exceptions.

Each message says what was given, what is possible and what to do. They also
derive from the built-in exception that fits, so code that catches `ValueError`
keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

__all__ = [
    "CheckpointError",
    "DataError",
    "EvidenceError",
    "FeedbackAdapterError",
    "InputError",
    "ModelError",
    "OptionsError",
    "PhotosError",
    "PluginError",
    "SiteError",
    "did_you_mean",
]


class FeedbackAdapterError(Exception):
    """Base of all errors that this library raises on purpose."""


class EvidenceError(FeedbackAdapterError, ValueError):
    """What is said to be known can't be: unknown name, contradiction, wrong size, NaN."""


class InputError(FeedbackAdapterError, ValueError):
    """The images can't be used: NaN or inf, wrong device, no batch."""


class PhotosError(InputError):
    """Some of several photos can't be read; the others could, and were.

    Args:
        unread: The number of each such photo, from 0 on, and why it can't be read.
    """

    def __init__(self, unread: Mapping[int, InputError], show: int = 5) -> None:
        self.unread = dict(unread)
        """The number of each photo that can't be read, and why."""
        some = [f"Photo {row}: {error}" for row, error in list(self.unread.items())[:show]]
        more = f" And {len(self.unread) - show} more." if len(self.unread) > show else ""
        photos = "1 photo" if len(self.unread) == 1 else f"{len(self.unread)} photos"
        super().__init__(f"{photos} can't be read. {' '.join(some)}{more}")


class ModelError(FeedbackAdapterError, ValueError):
    """The model can't be wrapped as described: wrong outputs, labels or device."""


class SiteError(FeedbackAdapterError, ValueError):
    """A pivot can't sit where it was asked to."""


class OptionsError(FeedbackAdapterError, ValueError):
    """An option is out of its documented range."""


class PluginError(FeedbackAdapterError, RuntimeError):
    """A plugin can't be used: unknown name, name taken twice, broken hook."""


class CheckpointError(FeedbackAdapterError, ValueError):
    """A checkpoint can't be read or written: missing file, wrong sha256, unknown name."""


class DataError(FeedbackAdapterError, ValueError):
    """A data folder isn't in any layout that we read."""


def did_you_mean(name: object, possible: Iterable[str], *, show: int = 8) -> str:
    """Say which names are close to `name`, or what there is to choose from.

    Args:
        name: What was given.
        possible: What could have been given.
        show: How many names to list when none is close.

    Returns:
        A sentence that starts with a capital and ends with a full stop.
    """
    names = sorted({str(p) for p in possible})
    folded = {p.casefold(): p for p in names}
    close = difflib.get_close_matches(str(name)[:200].casefold(), folded, n=3, cutoff=0.6)
    near = [folded[key] for key in close]
    if near:
        return f"Did you mean {' or '.join(map(repr, near))}?"
    if not names:
        return "There is none to choose from."
    more = f" and {len(names) - show} more" if len(names) > show else ""
    return f"Possible: {', '.join(map(repr, names[:show]))}{more}."
