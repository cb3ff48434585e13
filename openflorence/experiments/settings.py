"""Words of the command line -> the settings of a recipe, by the types of its fields."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from openflorence.errors import BadConfig

_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_settings(kind: type, words: Sequence[str]) -> dict[str, Any]:
    """Read field=value words.

    kind      dataclass of settings; its fields are of plain types.
    raises    BadConfig for an unknown field, or a value that is not of its type.
    """
    types = {field.name: field.type for field in fields(kind)}
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in types:
            raise BadConfig(f"--set {word!r}; give field=value, with one of {', '.join(types)}")
        maker = types[name]
        assert isinstance(maker, type)
        try:
            # bool("false") is true, so the words are looked up.
            values[name] = _BOOLS[value.strip().lower()] if maker is bool else maker(value)
        except (ValueError, KeyError):
            allowed = f", one of {', '.join(_BOOLS)}" if maker is bool else ""
            raise BadConfig(f"--set {word!r}: {name} is of type {maker.__name__}{allowed}") from None
    return values
