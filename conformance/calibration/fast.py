"""Convolutions by Winograd's algorithm and by Fourier transform: right by design, but with larger errors.

Their intermediate sums are larger than those of the products that they replace, so that they are a class of their own:
a user who chooses them chooses their errors, and one who did not wants to be told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...operators.scale import Array
from .case import Case, Outputs
from .trials import stored
from .windows import padded, windows

F = np.float32
THREE = (3, 3)

# Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4: Bᵀ, G, Aᵀ
F23 = (
    np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], F),
    np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], F),
    np.array([[1, 1, 1, 0], [0, 1, -1, -1]], F),
)
F43 = (
    np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        F,
    ),
    np.array(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
        F,
    )
    / F(24),
    np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], F),
)


def _plain(case: Case) -> bool:
    """Two spatial axes, steps of one, one group."""
    given = case.attributes
    ones = all(set(given.get(name, [1])) == {1} for name in ("strides", "dilations"))
    return case.op_type == "Conv" and ones and given.get("group", 1) == 1 and np.ndim(case.inputs[0]) == 4


def _biased(case: Case, y: Array) -> Outputs:
    tensors: list[Any] = [*case.inputs, None]
    x, _, b = tensors[:3]
    return (stored((y if b is None else y + b.astype(F)[:, None, None]).astype(F), x),)


def winograd(case: Case, matrices: tuple[Array, Array, Array]) -> Outputs | None:
    """F(m × m, 3 × 3) in float32."""
    x: Any = case.inputs[0]
    w: Any = case.inputs[1]
    if not _plain(case) or w.shape[2:] != THREE:
        return None
    bt, g, at = matrices
    m, tile = at.shape
    pads = list(case.attributes.get("pads", [0] * 4))
    out = [n + p + q - 2 for n, p, q in zip(x.shape[2:], pads[:2], pads[2:], strict=True)]
    more = [-n % m for n in out]
    data = windows(padded(x.astype(F), [*pads[:2], pads[2] + more[0], pads[3] + more[1]]), (tile, tile), (m, m), (1, 1))
    u = np.matmul(np.matmul(g, w.astype(F)), g.T)  # (M, C, tile, tile)
    v = np.matmul(np.matmul(bt, data), bt.T)  # (N, C, H, W, tile, tile)
    z = np.einsum("mcij,nchwij->nmhwij", u, v, optimize=True).astype(F)
    y = np.matmul(np.matmul(at, z), at.T)  # (N, M, H, W, m, m)
    y = y.transpose(0, 1, 2, 4, 3, 5).reshape(*y.shape[:2], y.shape[2] * m, y.shape[3] * m)
    return _biased(case, y[..., : out[0], : out[1]])


def by_fourier(case: Case) -> Outputs | None:
    """The convolution theorem in complex64."""
    import scipy.fft  # noqa: PLC0415 (heavy, and used here alone)

    x: Any = case.inputs[0]
    w: Any = case.inputs[1]
    if not _plain(case):
        return None
    p = padded(x.astype(F), list(case.attributes.get("pads", [0] * 4)))
    size = p.shape[2:]
    spectra: list[Any] = [scipy.fft.rfft2(t, s=size) for t in (p, w.astype(F))]
    z = np.einsum("nchw,mchw->nmhw", spectra[0], np.conj(spectra[1]), optimize=True)
    y: Any = scipy.fft.irfft2(z.astype(np.complex64), s=size)
    return _biased(case, y[..., : size[0] - w.shape[2] + 1, : size[1] - w.shape[3] + 1].astype(F))


VARIANTS: tuple[tuple[str, Callable[[Case], Outputs | None], str], ...] = (
    ("Winograd F(2, 3)", lambda case: winograd(case, F23), "Winograd F(2, 3)"),
    ("Winograd F(4, 3)", lambda case: winograd(case, F43), "Winograd F(4, 3)"),
    ("Fourier transform", by_fourier, "Fourier transform"),
)
