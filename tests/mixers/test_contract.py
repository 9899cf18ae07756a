"""What every mixer of the registry promises; a new mixer is tested by existing."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor

from mixlab.errors import UserError
from mixlab.mixers import MIXERS, Mixer, mixer_info
from tests.mixers.cases import DIM, PRIMES, make, windowed

NAMES = list(MIXERS)
DIMS = (1, 2, 3)


def run(mixer: Mixer, x: Tensor) -> Tensor:
    """The map that a mixer returns, with or without global tokens beside it."""
    out = mixer(x)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_gradients(name: str, spatial_dims: int) -> None:
    mixer = make(name, spatial_dims)
    x = torch.randn(2, DIM, *PRIMES[spatial_dims], requires_grad=True)
    y = run(mixer, x)
    assert y.shape == x.shape
    y.square().sum().backward()
    for key, parameter in [("input", x), *mixer.named_parameters()]:
        if parameter.requires_grad:
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name: str, spatial_dims: int) -> None:
    size = {1: (4,), 2: (3, 2), 3: (2, 1, 3)}[spatial_dims]
    mixer = make(name, spatial_dims, grid=size).double().eval()
    x = torch.randn(1, DIM, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: run(mixer, t), (x,))


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", [n for n in NAMES if not getattr(MIXERS[n], "needs_grid", False)])
def test_any_size_of_at_least_one_token(name: str, spatial_dims: int) -> None:
    mixer = make(name, spatial_dims).eval()  # batch statistics of one value do not exist
    for size in ((1,) * spatial_dims, (2,) * spatial_dims, (1,) * (spatial_dims - 1) + (13,)):
        assert run(mixer, torch.randn(1, DIM, *size)).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    mixer = make(name, 2)
    x = torch.randn(2, DIM, *PRIMES[2])
    got = run(copy.deepcopy(mixer).to(dtype), x.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), run(mixer, x), atol=0.03 if dtype == torch.bfloat16 else 1e-5, rtol=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_raise(name: str) -> None:
    mixer = make(name, 2)
    for shape in ((2, DIM, 7), (2, DIM + 1, 7, 5), (2, DIM, 3, 7, 5)):
        with pytest.raises(UserError, match="expected shape"):
            mixer(torch.randn(shape))


@pytest.mark.parametrize("name", NAMES)
def test_evaluated_in_inference_mode_then_trained(name: str) -> None:
    mixer, x = make(name, 2), torch.randn(2, DIM, *PRIMES[2])
    with torch.inference_mode():
        before = run(mixer, x).clone()
    x = x.clone().requires_grad_()
    run(mixer, x).sum().backward()
    torch.testing.assert_close(run(mixer, x).detach(), before.clone())


@pytest.mark.parametrize("name", NAMES)
def test_copied_and_pickled_after_use(name: str) -> None:
    mixer, x = make(name, 2), torch.randn(2, DIM, *PRIMES[2])
    y = run(mixer, x)
    for twin in (copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
        assert torch.equal(run(twin, x), y)
        assert twin.state_dict().keys() == mixer.state_dict().keys()


@pytest.mark.parametrize("spatial_dims", DIMS)
@pytest.mark.parametrize("name", [n for n in NAMES if not getattr(MIXERS[n], "needs_grid", False)])
def test_exports_with_dynamic_size(name: str, spatial_dims: int) -> None:
    mixer = make(name, spatial_dims).eval()
    x = torch.randn(2, DIM, *PRIMES[spatial_dims])
    size = {axis: torch.export.Dim(f"n{axis}", min=2, max=64) for axis in range(2, 2 + spatial_dims)}
    arguments = (x,)
    program = torch.export.export(mixer, arguments, dynamic_shapes=({**size},) + (None,) * (len(arguments) - 1))
    for other in (PRIMES[spatial_dims], tuple(n + 4 for n in PRIMES[spatial_dims])):
        z = torch.randn(2, DIM, *other)
        got = program.module()(z)
        torch.testing.assert_close(got[0] if isinstance(got, tuple) else got, run(mixer, z))


@pytest.mark.parametrize("name", NAMES)
def test_compiles_as_one_graph(name: str) -> None:
    mixer, x = make(name, 2), torch.randn(2, DIM, *PRIMES[2])
    compiled = torch.compile(mixer, backend="aot_eager", fullgraph=True)
    got = compiled(x)
    torch.testing.assert_close(got[0] if isinstance(got, tuple) else got, run(mixer, x))


@pytest.mark.parametrize("name", windowed())
def test_kernel_sizes(name: str) -> None:
    for kernel in (0, 2, -3, (3, 4)):
        with pytest.raises(UserError, match="kernel_size"):
            make(name, 2, kernel_size=kernel)
    with pytest.raises(UserError, match="2 ints"):
        make(name, 2, kernel_size=(3, 3, 3))
    if mixer_info(name)["reach"] == "global":
        return  # it looks beyond its window by other means
    anisotropic = make(name, 3, kernel_size=(1, 3, 3)).eval()
    x = torch.randn(1, DIM, *PRIMES[3])
    alone = run(anisotropic, x[:, :, :1])
    torch.testing.assert_close(run(anisotropic, x)[:, :, :1], alone)  # slices do not see each other


@pytest.mark.parametrize("name", [n for n in windowed() if mixer_info(n)["reach"] != "global"])
def test_a_window_looks_no_further(name: str) -> None:
    mixer = make(name, 2, kernel_size=(3, 5)).double().eval()
    x = torch.randn(1, DIM, 7, 11, dtype=torch.float64, requires_grad=True)
    run(mixer, x)[0, :, 3, 5].square().sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    expected = torch.zeros(7, 11, dtype=torch.bool)
    far = 2 if mixer.includes.reach == "two windows" else 1
    expected[3 - far : 4 + far, 5 - 2 * far : 6 + 2 * far] = True
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("name", NAMES)
def test_documented(name: str) -> None:
    info = mixer_info(name)
    doc = MIXERS[name].__doc__ or ""
    assert info["summary"].endswith(".")
    assert "Cost:" in doc
    assert "Source:" in doc


@pytest.mark.parametrize("name", NAMES)
def test_includes_tells_the_truth(name: str) -> None:
    """``learned``, ``mixes_channels``, ``subtracts_input`` and ``reach`` are seen in what the mixer does."""
    mixer = make(name, 2, grid=(9, 9)).double().eval()
    x = torch.randn(1, DIM, 9, 9, dtype=torch.float64, requires_grad=True)
    y = run(mixer, x)
    (grad,) = torch.autograd.grad(y[0, 0, 4, 4], x)
    assert (grad[0, 1:].abs().sum() > 0).item() == mixer.includes.mixes_channels
    seen = (grad[0].abs().sum(0) > 0).sum().item()
    assert seen == {"position": 1, "window": 9, "two windows": 25, "global": 81}[mixer.includes.reach]
    constant = run(mixer, torch.ones(1, DIM, 9, 9, dtype=torch.float64))
    if mixer.includes.subtracts_input and not mixer.includes.learned:
        assert constant.abs().max() < 1e-12
    assert any(p.requires_grad for p in mixer.parameters()) == mixer.includes.learned
