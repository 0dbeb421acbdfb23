import torch

from llamaherd.train.flops import peak_flops


def test_measuring_the_machine_changes_nothing_else() -> None:
    peak_flops.cache_clear()
    before = torch.get_rng_state()
    measured = peak_flops(torch.device("cpu"))
    assert measured > 1e8
    assert peak_flops(torch.device("cpu")) == measured
    assert torch.get_rng_state().equal(before)
