"""What all bodies of requests have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Body(BaseModel):
    """A JSON object with known fields only, of exactly their types; no field may be null."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _has_no_nulls(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            raise ValueError("must be a JSON object")
        for field, value in body.items():
            if value is None:
                raise ValueError(f"{str(field)[:64]} must not be null; leave it out for its default")
        return body

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Fields without a default value are optional in Python, but their null is not accepted."""
        shown = handler(schema)
        for field in handler.resolve_ref_schema(shown).get("properties", {}).values():
            choices = [choice for choice in field.get("anyOf", ()) if choice != {"type": "null"}]
            if len(choices) == 1:
                del field["anyOf"]
                field.pop("default", None)
                field.update(choices[0])
        return shown


def refuse_nul(text: str) -> str:
    """The text; ValueError when it holds a NUL character, which PostgreSQL can't store."""
    if "\x00" in text:
        raise ValueError("must not hold a NUL character")
    return text
