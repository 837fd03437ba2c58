"""Common parts of the configuration: the types of values, and the messages for wrong ones.

Numbers are finite, a `true` is no number, text is short and printable, and `null` takes an entry out of a list of named
entries. A message has one line per fault: the key, what was expected there, and what was found.
"""

from __future__ import annotations

import difflib
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from zmill.redact import redact, refuse_secrets

LONGEST_TEXT = 1000
"""Largest length of a text in the configuration; no file system allows a longer name."""
MOST_FAULTS = 20
"""Largest number of faults in one message."""
SHOWN = 60
"""Length to which a wrong value is cut in a message."""
SEED_MAX = 2**31 - 1
"""Largest seed: LightGBM accepts signed 32-bit seeds; all other libraries accept more."""


class ConfigError(Exception):
    """A wrong setting, file or column; the message names the fault, its location, what was expected and what to do."""


class Section(BaseModel):
    """A part of the configuration: typed, frozen, unknown keys and numbers that are not finite refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    PROSE: ClassVar[frozenset[str]] = frozenset()
    """Keys whose text may have several lines."""

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` instead of a number, and text that is too long or not printable; remove null entries."""
        name = info.field_name or ""
        annotation = cls.model_fields[name].annotation
        kinds = _kinds(annotation)
        if _is_null(value) and NoneType in kinds and str not in kinds:
            value = None
        if any(_is_section(kind) for kind in kinds):  # whose keys are looked at one by one, each by its name
            leaves = list(value) if isinstance(value, dict) else [value]
        else:
            leaves = list(leaves_of(value))
        if kinds & {int, float} and not kinds & {bool, str, Any} and any(isinstance(leaf, bool) for leaf in leaves):
            raise ValueError(f"expected a number, found {shown(value)}")
        for leaf in leaves:
            if isinstance(leaf, str):
                _refuse_text(leaf, allowed="\n\t" if name in cls.PROSE else "")
        if isinstance(value, dict) and _null_removes(annotation):
            value = {
                key: entry
                for key, entry in value.items()
                if not (entry is None or (str not in kinds and _is_null(entry)))
            }
        return value


def _is_null(value: Any) -> bool:
    """Whether a value is null or the text `null`, because Snakemake's `--config` passes values in braces as text."""
    return value is None or value == "null"


def leaves_of(value: Any) -> Any:
    """All values in nested lists and dictionaries, and the dictionaries' keys."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, Mapping):
            pending += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set):
            pending += one
        else:
            yield one


def _kinds(annotation: Any) -> set[Any]:
    """The types that values in a list, dictionary or union may have."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kinds(arguments[0])
    if not arguments or isinstance(arguments[0], str):
        return {annotation}
    if origin is dict:
        arguments = arguments[1:]
    return set().union(*(_kinds(argument) for argument in arguments if argument is not ...))


def _null_removes(annotation: Any) -> bool:
    """Whether a field holds named entries of which none is itself null."""
    annotation = _unwrapped(annotation)
    if get_origin(annotation) is not dict:
        return False
    return NoneType not in _kinds(get_args(annotation)[1])


def _refuse_text(text: str, allowed: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"expected at most {LONGEST_TEXT:,} characters, found {len(text):,}: {shown(text)}")
    wrong = sorted({sign for sign in text if unicodedata.category(sign) in ("Cc", "Cs") and sign not in allowed})
    if wrong:
        signs = ", ".join(f"U+{ord(sign):04X}" for sign in wrong[:5])
        raise ValueError(
            f"expected printable characters, found {shown(text)} with {signs}: a line break, tab or the like"
        )


# ---------------------------------------------------------------------------------------------------- types


def _expanded_path(text: str) -> str:
    """`~` and `$VARIABLE` of a path expanded."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            raise ValueError(
                f"${name} of {shown(text)} is not set in the environment: set it, or write the folder itself"
            )
        return os.environ[name]

    expanded = re.sub(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", value, text, flags=re.ASCII)
    if expanded.startswith("~"):
        expanded = os.path.expanduser(expanded)  # noqa: PTH111 (keeps the text as it is but for the user)
        if expanded.startswith("~"):
            raise ValueError(
                f"there is no user of this name: {shown(text)}; write ./~… for a file whose name begins so"
            )
    return refuse_braces(expanded)


def refuse_braces(path: str) -> str:
    """The path; ValueError where Snakemake would read braces in it as wildcards."""
    if "{" in path or "}" in path:
        raise ValueError(
            f"found braces in {shown(path)}, which mark wildcards in Snakemake: rename or link the file or folder"
        )
    return path


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or " " in text:
        raise ValueError(f"expected an address that begins with https:// or http://, found {shown(redact(text))}")
    refuse_secrets(text)
    return text


def _in_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("give at least one number")
    return tuple(sorted(set(values)))


Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
Setting = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)*$", max_length=128)]
Text = Annotated[str, Field(min_length=1)]
PathText = Annotated[str, Field(min_length=1), AfterValidator(_expanded_path)]
"""A file, folder or pattern of files; `~` and `$VARIABLE` are expanded."""
Number = TypeVar("Number", int, float)
Several = Annotated[tuple[Number, ...], BeforeValidator(_in_tuple), AfterValidator(_distinct)]
"""One number or a list of several, which become a sorted tuple of different numbers."""
Url = Annotated[str, AfterValidator(_address)]
"""Address of a service; `$VARIABLE` is expanded at the time of the request (`zmill.redact`)."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Radius = Annotated[float, Field(gt=0, le=60)]
Seed = Annotated[int, Field(ge=0, le=SEED_MAX)]


# ------------------------------------------------------------------------------------------------- messages


def parse(section: type[BaseModel], values: Any, where: str) -> Any:
    """Validate `values` as `section`.

    Raises
    ------
    ConfigError
        With one line per fault, each naming the key, what was expected and what was found.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected keys and values, found {shown(values)}")
    try:
        return section.model_validate(values)
    except ValidationError as error:
        lines = _faults(section, values, error)
    if len(lines) > MOST_FAULTS:
        lines = [*lines[:MOST_FAULTS], f"… and {len(lines) - MOST_FAULTS} more"]
    raise ConfigError("\n".join(f"{where}: {line}" for line in lines))


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the known name nearest to `name`, or nothing."""
    close = difflib.get_close_matches(name[:LONGEST_TEXT], known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def shown(value: Any) -> str:
    """A value as shown in a message: short, on one line, in YAML syntax."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**20:
        return "a whole number of more than 20 digits"
    if isinstance(value, dict):
        return f"keys and values ({', '.join(_key(key) for key in list(value)[:3])}{', …' if len(value) > 3 else ''})"
    if isinstance(value, list | tuple):
        return f"a list ({', '.join(shown(entry) for entry in value[:3])}{', …' if len(value) > 3 else ''})"[
            : 3 * SHOWN
        ]
    if isinstance(value, str | int | float):
        return _short(repr(value))
    return f"a {type(value).__name__} ({_short(str(value))}); put it in quotes if it is text"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 2]}…{text[-1]}"


def _key(key: Any) -> str:
    return key if isinstance(key, str) and re.fullmatch(r"[\w .-]{1,60}", key) else shown(key)


def _faults(section: type[BaseModel], values: Any, error: ValidationError) -> list[str]:
    """One line per wrong key; the alternatives of a key with several types are in one line."""
    expected: dict[tuple[Any, ...], list[str]] = {}
    found: dict[tuple[Any, ...], str] = {}
    for fault in error.errors(include_url=False):
        path = _path(values, fault)
        message, with_value = _message(section, fault)
        if message not in expected.setdefault(path, []):
            expected[path].append(message)
        if with_value:
            found[path] = shown(fault["input"])
    lines = []
    for path, messages in expected.items():
        if path in found:
            text = " or ".join(dict.fromkeys(message.removeprefix("expected ") for message in messages))
            messages = [f"expected {text}, found {found[path]}"]
        name = ".".join(_key(part) for part in path)
        lines += [f"{name}: {message}" if name else message for message in messages]
    return lines


def _path(values: Any, fault: Any) -> tuple[Any, ...]:
    """The keys that lead to a fault, without pydantic's names of the alternatives of a key with several types."""
    path: list[Any] = []
    for depth, part in enumerate(fault["loc"], 1):
        there = (
            range(len(values)) if isinstance(values, list | tuple) else values if isinstance(values, Mapping) else ()
        )
        if part in there:
            values = values[part]
        elif fault["type"] == "missing" and depth == len(fault["loc"]):
            pass
        else:
            continue
        path.append(part)
    return tuple(path)


_BOUNDS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}
_KINDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "keys and values"),
    "finite_number": "a finite number",
    "string_type": "text",
    "string_unicode": "text",
    "string_pattern_mismatch": "a name of letters, digits and _ that begins with a letter",
}


def _message(section: type[BaseModel], fault: Any) -> tuple[str, bool]:
    """The expected value, and whether the message adds the found one."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "extra_forbidden":
        known = _keys_at(section, fault["loc"][:-1])
        key = str(fault["loc"][-1])
        return f"unknown key{nearest(key, known) or '; known keys here: ' + ', '.join(known)}", False
    if kind == "missing":
        return "this key is required and missing", False
    if kind == "invalid_key":
        return f"expected a key that is text, found {shown(fault['input'])}: put it in quotes", False
    if kind in _BOUNDS:
        return f"expected {_BOUNDS[kind]} {next(iter(context.values())):g}", True
    if kind == "literal_error":
        return f"expected {context['expected']}", True
    if kind in ("too_short", "too_long"):
        least, most = context.get("min_length"), context.get("max_length")
        bound = f"at least {least}" if kind == "too_short" else f"at most {most}"
        return (
            f"expected {bound} {'entry' if 1 in (least, most) else 'entries'}, found {context['actual_length'] or 'none'}",
            False,
        )
    if kind == "string_too_short":
        return "expected text that is not empty", True
    if kind == "string_too_long":
        return f"expected at most {context['max_length']} characters", True
    if kind == "value_error":
        return str(context["error"]), False
    return f"expected {_KINDS.get(kind, 'another kind of value')}", True


def _keys_at(section: Any, loc: tuple[Any, ...]) -> list[str]:
    """The keys of the section at a path of the configuration."""
    for part in loc:
        section = _unwrapped(section)
        named = (
            {field.alias or name: field.annotation for name, field in section.model_fields.items()}
            if _is_section(section)
            else {}
        )
        arguments = [a for a in get_args(section) if a is not NoneType]
        section = named.get(part) or (arguments[-1] if arguments else section)
    section = _unwrapped(section)
    return [field.alias or name for name, field in section.model_fields.items()] if _is_section(section) else []


def _unwrapped(annotation: Any) -> Any:
    while get_origin(annotation) in (Union, Annotated) or type(annotation).__name__ == "UnionType":
        choices = [a for a in get_args(annotation) if a is not NoneType]
        annotation = next((a for a in choices if _is_section(a)), choices[0])
    return annotation


def _is_section(section: Any) -> bool:
    return isinstance(section, type) and issubclass(section, BaseModel)


def same_file(path: Path) -> object:
    """A key that is equal for all paths of the same file, also through links and `..`."""
    try:
        found = path.stat()
    except OSError:
        return os.path.abspath(path)  # noqa: PTH100 (a link that leads nowhere stays what it is)
    return found.st_dev, found.st_ino
