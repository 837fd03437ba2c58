"""Strict reading of YAML files: valid but probably unintended YAML is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from zmill.sections import ConfigError, shown

MOST_BYTES = 1_000_000
DEEPEST = 20
MOST_VALUES = 100_000
"""Limits of a settings file: size, depth of nested keys, and number of values after expansion of aliases."""


def read_yaml(path: Path, where: str) -> Any:
    """The values of a YAML file.

    Parameters
    ----------
    where : what messages call the file.

    Raises
    ------
    ConfigError
        With one line: where the file is no UTF-8 text, no YAML, too large or too deeply nested, gives a key twice, or has a
        number that YAML 1.1 reads otherwise than it looks (`1:30` is 90, `010` is 8).
    """
    try:
        text = _text(path)
        root = _composed(text)
        if root is None:
            return None
        _refuse_bomb(root)
        _keys_as_text(root)
        _refuse_ambiguous(root)
        loader = yaml.SafeLoader("")
        return loader.construct_document(root)
    except _Fault as fault:
        raise ConfigError(f"{where}: {fault}") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{where}: {_of_parser(error, text)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{where}: line {line}: found the control character U+{int(error.character):04X}; remove it"
        ) from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"{where}: a value cannot be read: {str(error).splitlines()[0][:200]}") from None


class _Fault(Exception):
    pass


def _text(path: Path) -> str:
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise _Fault(f"cannot be read: {error.strerror}") from None
    if size > MOST_BYTES:
        raise _Fault(f"expected a file of at most {MOST_BYTES:,} bytes, found {size:,}")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content:
        raise _Fault("this is UTF-16 text or no text at all: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Fault(
            f"line {line}: found the byte {content[error.start]:#04x}, which is no UTF-8 (Latin-1 text?): save the file as UTF-8"
        ) from None


def _composed(text: str) -> yaml.Node | None:
    """The tree of a document; too deep nesting is refused from its events, before any recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise _Fault(f"line {event.start_mark.line + 1}: keys and lists are nested more than {DEEPEST} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    return root


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _refuse_bomb(root: yaml.Node) -> None:
    """Refuse aliases that contain themselves, or that expand to too many values."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, above: frozenset[int]) -> int:
        if id(node) in above:
            raise _Fault(f"line {node.start_mark.line + 1}: an alias holds itself")
        if id(node) not in sizes:
            sizes[id(node)] = 1 + sum(size(child, above | {id(node)}) for child in _children(node))
        return sizes[id(node)]

    if size(root, frozenset()) > MOST_VALUES:
        raise _Fault(f"expected at most {MOST_VALUES:,} values, found more (aliases written out)")


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """The root and all nodes below it, each once, whatever the number of aliases."""
    seen: set[int] = set()
    pending = [root]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        pending += _children(node)
        yield node


def _keys_as_text(root: yaml.Node) -> None:
    """Read every key as text: `Yes` and `no`, which may be flags of a survey, are no truth values, and `3.50` is no number."""
    for node in _nodes(root):
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else []:
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                key.tag = "tag:yaml.org,2002:str"


def _refuse_ambiguous(root: yaml.Node) -> None:
    """Refuse repeated keys, of which a parser would use the last, and texts that look like numbers but are parsed differently."""
    for node in _nodes(root):
        if isinstance(node, yaml.MappingNode):
            first: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise _Fault(
                        f"line {line}: expected a key, found a list or keys and values; put text with braces in quotes"
                    )
                name = key.tag, key.value
                if name in first:
                    raise _Fault(
                        f"line {line}: the key {shown(key.value)} is given twice, first in line {first[name]}; keep one"
                    )
                first[name] = line
        elif isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") and not node.style:
            if ":" in node.value or re.fullmatch(r"[-+]?0[0-9_]+", node.value):
                raise _Fault(
                    f"line {node.start_mark.line + 1}: {node.value} is a number of base {60 if ':' in node.value else 8} in YAML: write "
                    "it as a decimal number, or in quotes if it is text"
                )
        elif isinstance(node, yaml.ScalarNode) and node.tag.endswith(":float") and ":" in node.value and not node.style:
            raise _Fault(
                f"line {node.start_mark.line + 1}: {node.value} is a number of base 60 in YAML: write it as a decimal number"
            )


def _of_parser(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    line = (mark.line if mark else 0) + 1
    lines = text.splitlines()
    found = lines[line - 1] if line <= len(lines) else ""
    if "\t" in found[: len(found) - len(found.lstrip())] or (error.problem and "'\\t'" in error.problem):
        return f"line {line}: found a tab; indent with blanks"
    return (
        f"line {line}: not YAML: {(error.problem or 'it ends too early').splitlines()[0][:200]}: {shown(found.strip())}"
    )
