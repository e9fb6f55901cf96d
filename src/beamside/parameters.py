"""Declaring parameters once, so that the command line, the workflow files, the report and the reference pages are made from one place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

_KEY = "beamside"

NOT_DECLARED: Any = object()
"""Stands for a value that a parameter was not declared with."""


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
    unset : the value that means the same as not having the parameter, besides None; a list of one, or empty
    """

    name: str
    unit: str
    flag: str
    advanced: bool
    relion: str
    affects_result: bool
    unset: list[Any]
    field: FieldInfo

    def is_unset(self, value: Any) -> bool:
        """Tell whether a value, as JSON, means the same as not having the parameter."""
        return value is None or any(type(value) is type(one) and value == one for one in self.unset)


def parameter(
    default: Any,
    description: str,
    *,
    unit: str = "",
    flag: str = "",
    advanced: bool = False,
    relion: str = "",
    affects_result: bool = True,
    unset: Any = NOT_DECLARED,
    **constraints: Any,
) -> Any:
    """Declare a parameter; `constraints` are pydantic's (``ge``, ``le``, ``gt``, ``min_length``, ...). Use ``...`` for required ones.

    `unset` is for a parameter that a job type gets when there are results already: with that value, as it is in JSON, the job does what it did
    before. It stays out of keys then, as None always does, so these results stay valid. Its default may be another value.
    """
    declared: dict[str, Any] = {
        "unit": unit,
        "flag": flag,
        "advanced": advanced,
        "relion": relion,
        "affects_result": affects_result,
        "unset": [] if unset is NOT_DECLARED else [unset],
    }
    extra: dict[str, Any] = {_KEY: declared}
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
            unset=declared.get("unset", []),
            field=field,
        )


def set_parameters(parameters: BaseModel) -> dict[str, Any]:
    """Return all parameters that are set, as JSON values."""
    dumped = parameters.model_dump(mode="json")
    return {info.name: dumped[info.name] for info in describe(type(parameters)) if not info.is_unset(dumped[info.name])}


def result_parameters(parameters: BaseModel, *, with_none: bool = False) -> dict[str, Any]:
    """Return the parameters that change results, as JSON values: the part that belongs into an item's key.

    Those that are not set stay out of it; earlier versions took in what was None (`with_none`).
    """
    found = set_parameters(parameters)
    if with_none:
        found |= {name: value for name, value in parameters.model_dump(mode="json").items() if value is None}
    return {
        info.name: found[info.name] for info in describe(type(parameters)) if info.affects_result and info.name in found
    }
