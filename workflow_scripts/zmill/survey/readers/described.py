"""Units of columns in the metadata of Parquet and HDF5 files, as different writers store them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

import pyarrow as pa

KEYS = ("unit", "units", "tunit")
"""Names of a column's unit attribute, in any case."""


def of_schema(schema: pa.Schema) -> dict[str, str]:
    """Units of the columns of an Arrow schema: of the fields' metadata, astropy's `table_meta_yaml`, a VOTable header in the
    file's metadata (VOParquet 1.0), or pandas' attributes.
    """
    metadata = schema.metadata or {}
    units: dict[str, str] = {}
    if b"PANDAS_ATTRS" in metadata:
        units |= _of_attributes(metadata[b"PANDAS_ATTRS"], schema.names)
    if b"IVOA.VOTable-Parquet.content" in metadata:
        units |= _of_votable(metadata[b"IVOA.VOTable-Parquet.content"])
    if b"table_meta_yaml" in metadata:
        units |= of_yaml(metadata[b"table_meta_yaml"].decode("utf-8", "replace").splitlines())
    units |= {field.name: of_attributes(field.metadata) for field in schema if of_attributes(field.metadata or {})}
    return {name: unit for name, unit in units.items() if name in schema.names}


def of_yaml(lines: Iterable[str]) -> dict[str, str]:
    """Units of the header that astropy writes into ECSV, HDF5 and Parquet; none for other headers."""
    from astropy.table.meta import (
        get_header_from_yaml,
    )  # only for files that have such a header: it takes long to import

    try:
        columns = get_header_from_yaml(list(lines))["datatype"]
    except Exception:  # text of any kind may stand there, and a header that cannot be read names no unit
        return {}
    return {column["name"]: str(column["unit"]) for column in columns if column.get("unit")}


def of_attributes(attributes: Mapping[Any, Any]) -> str:
    """The unit among a column's attributes; empty where there is none."""
    for key, value in attributes.items():
        name = key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)
        if name.lower() in KEYS:
            return _text(value)
    return ""


def _of_attributes(text: bytes, names: list[str]) -> dict[str, str]:
    """Units in the attributes of a pandas table: {"units": {column: unit}} or {column: {"unit": unit}}."""
    try:
        attributes = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(attributes, dict):
        return {}
    tables = [value for key, value in attributes.items() if key.lower() in KEYS and isinstance(value, dict)]
    units = {name: _text(unit) for table in tables for name, unit in table.items() if isinstance(unit, str)}
    own = {name: of_attributes(attributes[name]) for name in names if isinstance(attributes.get(name), dict)}
    return {name: unit for name, unit in {**units, **own}.items() if unit}


def _of_votable(text: bytes) -> dict[str, str]:
    from astropy.io import votable  # as in of_yaml

    try:
        tables = list(votable.parse(BytesIO(text), verify="ignore").iter_tables())
    except Exception:  # as in of_yaml
        return {}
    return {field.name or field.ID: str(field.unit) for table in tables for field in table.fields if field.unit}


def _text(value: Any) -> str:
    while getattr(value, "shape", None) == (1,):
        value = value[0]
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
