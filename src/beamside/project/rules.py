"""A rule on what a job has measured of an item, as the journal has it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
"""How a measured value and a limit may be compared."""


@dataclass(frozen=True)
class Rule:
    """What the result of an item must keep to, so that it is used further.

    Attributes
    ----------
    text : the rule as people read it: "ctf.ctf_resolution < 6 Å"
    metric : what was measured, by its name in results
    comparison : one of `COMPARISONS`
    limit : in the unit in which the metric is shown
    scale : factor from the stored number to the shown one
    """

    text: str
    metric: str
    comparison: str
    limit: float
    scale: float = 1.0

    def allows(self, metrics: Mapping[str, Any]) -> bool:
        """Tell whether a result with these metrics keeps to the rule. Where the metric was not measured, a rule says nothing."""
        value = metrics.get(self.metric)
        if value is None:
            return True
        shown = self.shown(float(value))
        return math.isfinite(shown) and COMPARISONS[self.comparison](shown, self.limit)

    def shown(self, value: float) -> float:
        """Return a stored value in the unit of the limit; what scaling adds behind the last digits decides nothing."""
        return float(f"{value * self.scale:.12g}")

    def to_json(self) -> dict[str, Any]:
        """Return the form kept in the journal."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rule:
        """Make a rule from its form in the journal; raises KeyError or ValueError for what is none."""
        if data["comparison"] not in COMPARISONS:
            raise ValueError(f"no comparison: {data['comparison']!r}")
        return cls(
            str(data["text"]), str(data["metric"]), data["comparison"], float(data["limit"]), float(data["scale"])
        )
