"""Lanes: results in order, errors raised, threads given back."""

from __future__ import annotations

import threading

import pytest
import torch

from zmill.networks.parallel import CPU_LANES, lanes

CPU = torch.device("cpu")


def test_results_are_in_the_order_of_the_parts() -> None:
    with lanes(CPU) as ways:
        assert ways.map(lambda part: part * part, range(50)) == [part * part for part in range(50)]


def test_parts_run_side_by_side_and_torch_on_one_thread_in_each() -> None:
    meeting = threading.Barrier(CPU_LANES, timeout=20)

    def work(part: int) -> int:
        meeting.wait()
        return torch.get_num_threads()

    with lanes(CPU) as ways:
        assert ways.map(work, range(CPU_LANES)) == [1] * CPU_LANES


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.raises(ValueError, match="of a part"), lanes(CPU) as ways:
        assert torch.get_num_threads() == 1
        ways.map(_fails, [1, 2])
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_gpu_has_a_single_lane() -> None:
    with lanes(torch.device("cuda")) as ways:
        assert ways.count == 1
        assert ways.map(lambda part: threading.current_thread(), [1, 2]) == [threading.current_thread()] * 2


def _fails(part: int) -> None:
    raise ValueError("of a part")
