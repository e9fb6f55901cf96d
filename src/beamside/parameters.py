"""Declaring parameters once, so that the command line, the workflow files, the report and the reference pages are made from one place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

_KEY = "beamside"


class ParameterModel(BaseModel):
    """Base of every set of parameters: unknown names are errors, values are frozen and validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _choose(cls, value: Any, info: ValidationInfo) -> Any:
        """Take a choice given as text, as the command line does: pydantic does so for numbers, and not for choices that are numbers."""
        annotation = cls.model_fields[info.field_name].annotation if info.field_name else None
        if isinstance(value, str) and get_origin(annotation) is Literal:
            return next((choice for choice in get_args(annotation) if str(choice) == value), value)
        return value


@dataclass(frozen=True)
class ParameterInfo:
    """What is known of one parameter besides its type and range.

    Attributes
    ----------
    name : field name in its model
    unit : unit of the value, for people ("Å", "e/Å²"), or ""
    flag : the long option on the command line, with dashes
    advanced : True for parameters that few users change
    relion : name of the same option in RELION's ``job.star``, or ""
    affects_result : False for those that change speed or display only (they stay out of an item's key)
    """

    name: str
    unit: str
    flag: str
    advanced: bool
    relion: str
    affects_result: bool
    field: FieldInfo


def parameter(
    default: Any,
    description: str,
    *,
    unit: str = "",
    flag: str = "",
    advanced: bool = False,
    relion: str = "",
    affects_result: bool = True,
    **constraints: Any,
) -> Any:
    """Declare a parameter; `constraints` are pydantic's (``ge``, ``le``, ``gt``, ``min_length``, ...). Use ``...`` for required ones."""
    extra: dict[str, Any] = {
        _KEY: {"unit": unit, "flag": flag, "advanced": advanced, "relion": relion, "affects_result": affects_result}
    }
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def describe(model: type[BaseModel]) -> Iterator[ParameterInfo]:
    """Yield what is declared of each parameter of `model`, in order."""
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        declared: Any = extra.get(_KEY, {})
        yield ParameterInfo(
            name=name,
            unit=declared.get("unit", ""),
            flag=declared.get("flag", "") or "--" + name.replace("_", "-"),
            advanced=declared.get("advanced", False),
            relion=declared.get("relion", ""),
            affects_result=declared.get("affects_result", True),
            field=field,
        )


def result_parameters(parameters: BaseModel) -> dict[str, Any]:
    """Return the parameters that change results, as JSON values: the part that belongs into an item's key."""
    dumped = parameters.model_dump(mode="json")
    return {info.name: dumped[info.name] for info in describe(type(parameters)) if info.affects_result}
