"""What a person answers about a gain reference."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from beamside.camera.gain.answers import record_answer
from beamside.flow.commands import ForHolder, Holder
from beamside.parameters import parameter


class Gain(ForHolder):
    """Answer a session's question about its gain reference; 'status' shows the question and what to type."""

    name = "gain"
    at_end = True  # the session may be ending because nobody had answered

    rotate: Literal[0, 90, 180, 270] = parameter(
        0, "Rotation of the reference, in degrees clockwise (row 0 at the top)."
    )
    flip: Literal["none", "up-down", "left-right"] = parameter("none", "Mirroring after the rotation.")
    use: Literal["multiply", "divide", "none"] = parameter(
        "multiply", "Whether frames are multiplied or divided by the reference, or neither.", flag="--mode"
    )
    none: bool = parameter(False, "Process the movies without it, because they are corrected already.")
    keep: bool = parameter(False, "When asked about later movies or a later reference: change nothing.")
    redo: bool = parameter(False, "When asked about later movies or a later reference: do as the question proposes.")

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if bool(self.model_fields_set & {"rotate", "flip", "use"}) + self.none + self.keep + self.redo != 1:
            raise ValueError(
                "give one answer: --rotate, --flip and --mode, or --none, or --keep, or --redo; 'beamside session status' shows what is asked"
            )
        return self

    def carry_out(self, holder: Holder, who: str) -> str:
        """Do it."""
        answer: dict[str, Any] = {
            "rotate": self.rotate,
            "flip": self.flip,
            "use": "none" if self.none else self.use,
        }
        if self.keep or self.redo:
            answer = {"keep" if self.keep else "redo": True}
        taken = holder.check.answer(answer) if holder.check is not None else []
        return " ".join(taken or record_answer(holder.writer, answer))  # no movie of that case may have come yet
