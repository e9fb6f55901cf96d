"""Sums that come out the same in every run."""

import pytest
import torch

from beamside.imaging.summing import add_at, deterministic

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.complex64])
def test_each_value_is_added_to_the_row_that_is_named(device: str, kind: torch.dtype) -> None:
    target = torch.ones((3, 2), dtype=kind, device=device)
    values = torch.tensor([[1, 2], [10, 20], [100, 200]], dtype=kind, device=device)
    result = add_at(target, torch.tensor([2, 0, 2], device=device), values)
    assert result is target
    assert target.cpu().tolist() == [[11, 21], [1, 1], [102, 203]]


@pytest.mark.parametrize("device", DEVICES)
def test_the_rounding_is_always_the_same(device: str) -> None:
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(7, (20_000,), generator=generator).to(device)
    values = torch.randn((20_000, 3), generator=generator).to(device)
    first, *others = (add_at(torch.zeros((7, 3), device=device), index, values) for _ in range(4))
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(("wanted", "only_warns"), [(False, False), (True, True)])
def test_the_switch_of_the_process_is_put_back(wanted: bool, only_warns: bool) -> None:
    torch.use_deterministic_algorithms(wanted, warn_only=only_warns)
    try:
        with deterministic():
            assert torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled() == wanted
        assert torch.is_deterministic_algorithms_warn_only_enabled() == only_warns
    finally:
        torch.use_deterministic_algorithms(False)
