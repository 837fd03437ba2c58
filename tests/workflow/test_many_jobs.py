"""What is spared Snakemake changes none of its answers."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import smart_open
from snakemake import common, rules

from zmill.workflow.many_jobs import OBJECTS, take_in_stride


@pytest.fixture
def in_stride(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threshold = gc.get_threshold()
    for module, name in ((smart_open, "parse_uri"), (common, "get_function_params"), (rules, "get_function_params")):
        monkeypatch.setattr(module, name, getattr(module, name))  # put back after the test
    yield
    gc.set_threshold(*threshold)


@pytest.mark.usefixtures("in_stride")
def test_what_was_found_out_once_is_not_found_out_again_and_is_the_same() -> None:
    addresses = ["/a/b.py", "file:///c d/e.py", "https://example.org/a?b=c"]
    functions = [lambda wildcards: 1, lambda wildcards, input, **rest: 2, addresses.index]
    before = [common.parse_uri(address)._asdict() for address in addresses]
    taken = [rules.get_function_params(function) for function in functions]
    for _ in range(2):
        take_in_stride(common, rules)
    assert gc.get_threshold()[0] == OBJECTS
    assert [common.parse_uri(address)._asdict() for address in addresses] == before
    assert common.parse_uri(addresses[0]) is common.parse_uri(addresses[0])
    with pytest.raises(NotImplementedError):
        common.parse_uri("unknown:")
    for module in (common, rules):
        assert [module.get_function_params(function) for function in functions] == taken
        assert module.get_function_params(functions[0]) is module.get_function_params(functions[0])
