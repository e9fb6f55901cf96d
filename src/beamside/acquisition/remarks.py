"""The words in which acquisition tells what is wrong: outages that are so at a look, and remarks about single files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["info", "warning", "error"]
"""How bad a problem is: an error needs a person, or data are at risk."""


@dataclass(frozen=True)
class Trouble:
    """Something that is so at this look: an outage. It opens when it is first listed, and closes when a later look no longer lists it.

    `key` is the same at every look: "source-unreadable:/camera/run1".
    """

    key: str
    sentence: str
    severity: Severity = "warning"


@dataclass(frozen=True)
class Remark:
    """What was noticed about one file or item.

    Remarks are shown grouped by subject, with their number, the first and the last item, and the range of the values where there are some.

    Attributes
    ----------
    subject : what it is about, the same for all files: "pixel-size-metadata"
    sentence : what is said when there is just one
    item : the file or item; of each, the subject has one remark
    value, unit : the number that differs from file to file, where there is one
    severity : how bad it is; of a group, the worst counts
    """

    subject: str
    sentence: str
    item: str = ""
    value: float | None = None
    unit: str = ""
    severity: Severity = "warning"
