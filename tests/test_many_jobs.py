"""What is spared Snakemake changes none of its answers."""

from __future__ import annotations

import gc

import pytest
import smart_open
from snakemake.common import parse_uri

from zmill.many_jobs import OBJECTS, take_in_stride


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smart_open, "parse_uri", smart_open.parse_uri)


@pytest.mark.usefixtures("as_before")
def test_addresses_are_taken_apart_once_and_as_before() -> None:
    threshold = gc.get_threshold()
    addresses = ["/a/b.py", "file:///c d/e.py", "https://example.org/a?b=c"]
    before = [parse_uri(address)._asdict() for address in addresses]
    try:
        take_in_stride()
        take_in_stride()
        assert gc.get_threshold()[0] == OBJECTS
        assert [parse_uri(address)._asdict() for address in addresses] == before
        assert parse_uri(addresses[0]) is parse_uri(addresses[0])
        with pytest.raises(NotImplementedError):
            parse_uri("unknown:")
    finally:
        gc.set_threshold(*threshold)
