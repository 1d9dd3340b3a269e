"""Fourier transforms, the windows that frames are weighted with, and the mel filterbank."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import InvalidAttributeError, InvalidInputError
from ._casting import convert
from .conversion import data_type
from .registry import Kernel, kernel
from .scale import Array, Rule, Scale
from .storage import is_float
from .transcendental import LIBRARY

TWIDDLE_ROUNDINGS = 20
"""Half-units of a product with a root of unity, for every number of a transform: its angle of up to 2πn is rounded
three times (6π), its cosine and the product once."""


def _signal(x: Array) -> Array:
    """(…, 1) as real numbers, (…, 2) as complex ones."""
    if x.shape[-1:] == (1,):
        return x[..., 0]
    if x.shape[-1:] == (2,):
        return x[..., 0] + 1j * x[..., 1]
    raise InvalidInputError(f"the last dimension holds real (and imaginary) parts: 1 or 2, got shape {x.shape}")


def _parts(y: Array) -> Array:
    """Complex numbers as (…, 2)."""
    return np.stack([np.real(y), np.imag(y)], axis=-1)


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank or axis % rank == rank - 1:
        raise InvalidAttributeError(f"DFT: axis={axis} is outside [{-rank}, {rank - 2}], or the one of the two parts")
    return axis % rank


def _length(x: Array, dft_length: Array | None, axis: int, inverse: int, onesided: int) -> int:
    if dft_length is not None:
        return int(dft_length.reshape(-1)[0])
    return 2 * (x.shape[axis] - 1) if inverse and onesided else x.shape[axis]


def _transformed(x: Array, dft_length: Array | None, axis: int, inverse: int, onesided: int) -> Array:
    axis = _axis(axis, x.ndim)
    n = _length(x, dft_length, axis, inverse, onesided)
    if n < 1:
        raise InvalidInputError(f"DFT: a transform of length {n}; at least 1 is needed")
    signal = _signal(x)
    if inverse and onesided:
        return np.fft.irfft(signal, n=n, axis=axis)[..., None]
    if inverse:
        return _parts(np.fft.ifft(signal, n=n, axis=axis))
    y = np.fft.fft(signal, n=n, axis=axis)
    if x.dtype == np.float32:
        y = _as_written(signal, y, n, axis)
    return _parts(y.take(range(n // 2 + 1), axis=axis) if onesided else y)


MOST_WRITTEN_OUT = 1 << 20
"""So many roots of unity are written out for a control; longer transforms are controlled at some of their results."""


def _as_written(signal: Array, y: Array, n: int, axis: int) -> Array:
    """A transform in float32, as only a control asks for it: the sum of the text, every angle 2πjk / n in float32.

    The angle grows to 2πn before the cosine takes it, and its rounding with it: so do those of the chirps that fast
    transforms of any length multiply with.
    """
    count = max(1, min(n, MOST_WRITTEN_OUT // n))
    chosen = np.unique(np.linspace(0, n - 1, count).astype(np.int64))  # the last one has the largest angles
    used = np.asarray(np.moveaxis(signal, axis, -1))[..., :n]
    j = np.arange(used.shape[-1], dtype=np.float32)
    angle = np.float32(-2 * math.pi) * j[:, None] * chosen.astype(np.float32) / np.float32(n)
    written = np.moveaxis(np.array(y, np.complex64), axis, -1)
    written[..., chosen] = used.astype(np.complex64) @ np.exp(1j * angle, dtype=np.complex64)
    return np.moveaxis(written, -1, axis)


def _transform_scale(x: Array, dft_length: Array | None, axis: int, inverse: int, onesided: int) -> Scale:
    """DOT of n numbers with roots of unity: Σ (|re| + |im|), over n where inverse.

    The certain bound admits e^(−2πi·jk / n) as it is written, with the angle in the stored type. Fast transforms err by
    about one half-unit (`spread`); for what lies far beyond that, `_as_written` is the control.
    """
    axis = _axis(axis, x.ndim)
    n = _length(x, dft_length, axis, inverse, onesided)
    used = np.abs(x).take(range(min(n, x.shape[axis])), axis=axis)
    mirrored = 2 if inverse and onesided else 1
    total = used.sum(axis=(axis, -1), keepdims=True) * mirrored
    terms = TWIDDLE_ROUNDINGS * x.shape[-1] * n * mirrored
    return Scale(total / n if inverse else total, terms, Rule.DOT, spread=1.0)


def dft_scale(
    _y: Array,
    x: Array,
    dft_length: Array | None = None,
    axis: Array | None = None,
    /,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Scale:
    """DOT: see `_transform_scale`."""
    return _transform_scale(x, dft_length, -2 if axis is None else int(axis), inverse, onesided)


@kernel("DFT", since=20, scale=dft_scale)
def dft(
    x: Array,
    dft_length: Array | None = None,
    axis: Array | None = None,
    /,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Array:
    """The discrete Fourier transform along one axis.

    Args:
        x: (…, n, …, 1) real or (…, n, …, 2) complex.
        dft_length: what `x` is cut or padded with zeros to; n by default, 2·(n − 1) for a one-sided inverse.
        axis: which one, −2 by default; not the last.
        inverse: the inverse transform, divided by the length.
        onesided: forwards, only the first length // 2 + 1 results; inverse: take only those, and return real numbers.

    Returns:
        (…, 2), or (…, 1) for a one-sided inverse.

    Raises:
        InvalidAttributeError: an axis that is none of the signal's.
        InvalidInputError: a last dimension other than 1 and 2, or a length below 1.

    Spec: DFT, since 20
    """
    return _transformed(x, dft_length, -2 if axis is None else int(axis), inverse, onesided)


def dft_by_attribute_scale(
    _y: Array, x: Array, dft_length: Array | None = None, /, *, axis: int = 1, inverse: int = 0, onesided: int = 0
) -> Scale:
    """DOT: see `_transform_scale`."""
    return _transform_scale(x, dft_length, axis, inverse, onesided)


@kernel("DFT", since=17, scale=dft_by_attribute_scale)
def dft_by_attribute(
    x: Array, dft_length: Array | None = None, /, *, axis: int = 1, inverse: int = 0, onesided: int = 0
) -> Array:
    """As since 20, with the axis as an attribute.

    Spec: DFT, since 17
    """
    return _transformed(x, dft_length, axis, inverse, onesided)


def _frames(x: Array, frame_step: Array, window: Array | None, frame_length: Array | None) -> Array:
    """(B, frames, frame_length, parts): weighted pieces of the signal."""
    if x.ndim != 3:
        raise InvalidInputError(f"STFT: a signal of shape (batch, length, 1 or 2) is needed, got {x.shape}")
    step = int(frame_step.reshape(-1)[0])
    if frame_length is not None:
        length = int(frame_length.reshape(-1)[0])
    else:
        length = x.shape[1] if window is None else len(window)
    if (window is not None and len(window) != length) or step < 1 or not 1 <= length <= x.shape[1]:
        raise InvalidInputError(
            f"STFT: frames of {length} every {step} of a signal of {x.shape[1]}, window of "
            f"{None if window is None else len(window)}"
        )
    pieces = np.lib.stride_tricks.sliding_window_view(x, length, axis=1)[:, ::step]  # (B, frames, parts, length)
    pieces = pieces.swapaxes(2, 3)
    return pieces if window is None else pieces * window[:, None]


def stft_scale(
    _y: Array,
    signal: Array,
    frame_step: Array,
    window: Array | None = None,
    frame_length: Array | None = None,
    /,
    *,
    onesided: int = 1,
) -> Scale:
    """DOT: as DFT of the weighted frames, one more rounding for the weights."""
    frames = _frames(signal, frame_step, window, frame_length)
    found = _transform_scale(frames, None, 2, 0, onesided)
    return Scale(found.magnitude, found.terms + frames.shape[2] * frames.shape[3], Rule.DOT, found.spread)


@kernel("STFT", since=17, scale=stft_scale)
def stft(
    signal: Array,
    frame_step: Array,
    window: Array | None = None,
    frame_length: Array | None = None,
    /,
    *,
    onesided: int = 1,
) -> Array:
    """The Fourier transform of weighted frames of a signal.

    Args:
        signal: (B, length, 1) real or (B, length, 2) complex.
        frame_step: a scalar, from frame to frame.
        window: (frame_length,) weights, 1 by default.
        frame_length: a scalar; by default the window's length, or the signal's.
        onesided: only the first frame_length // 2 + 1 results.

    Returns:
        (B, frames, frame_length or frame_length // 2 + 1, 2).

    Raises:
        InvalidInputError: lengths that do not go together.

    Spec: STFT, since 17
    """
    return _transformed(_frames(signal, frame_step, window, frame_length), None, 2, 0, onesided)


def _stored(values: Array, output_datatype: int, op_type: str) -> Array:
    return convert(values, data_type(op_type, output_datatype))


FLOAT32_IN_FLOAT64 = 2.0**29
"""Half-units of float64 in one of float32."""


def _register_window(op_type: str, terms: Sequence[float]) -> None:
    """A window a0 − a1·cos(2πn/N) + a2·cos(4πn/N), N the size, or one less where symmetric."""

    def angle(size: Array, periodic: int) -> Array:
        count = int(size.reshape(-1)[0])
        if count < 0:
            raise InvalidInputError(f"{op_type}: size {count}; at least 0 is needed")
        with np.errstate(all="ignore"):
            return 2 * math.pi * np.arange(count) / np.float64(count if periodic else count - 1)

    def window(size: Array, /, *, output_datatype: int = 1, periodic: int = 1) -> Array:
        at = angle(size, periodic)
        values = sum((-1) ** i * a * np.cos(i * at) for i, a in enumerate(terms))
        return _stored(np.asarray(values), output_datatype, op_type)

    def bound(y: Array, size: Array, /, *, periodic: int = 1, **_attributes: object) -> Scale:
        """11 at Σ a_i·(1 + |i·α·sin(i·α)|): a library's cosine (8), its angle, constants and sums; one step for
        integers. Open for the symmetric window of one element, 0 / 0. The function body computes in float32 and then
        casts, to float64 too."""
        at = angle(size, periodic)
        if not is_float(y.dtype):
            return Scale(np.zeros(()), np.where(np.isnan(at), np.inf, 1.0), Rule.EXACT)
        total = sum(a * (1 + np.abs(i * at * np.sin(i * at))) for i, a in enumerate(terms))
        total = total * (FLOAT32_IN_FLOAT64 if y.dtype == np.float64 else 1.0)
        return Scale(np.nan_to_num(np.asarray(total)), np.where(np.isnan(at), np.inf, LIBRARY + 3), Rule.ULP)

    window.__doc__ = f"""{" + ".join(f"({(-1) ** i * a:g})·cos({i}·2πn / N)" for i, a in enumerate(terms))}.

        Args:
            size: a scalar.
            output_datatype: TensorProto data type of the result.
            periodic: N is the size; else one less.

        Spec: {op_type}, since 17
        """
    register: Kernel = kernel(op_type, since=17, scale=bound)
    register(window)


_register_window("HannWindow", (0.5, 0.5))
_register_window("HammingWindow", (25 / 46, 21 / 46))
_register_window("BlackmanWindow", (0.42, 0.5, 0.08))


def _mel_edges(
    num_mel_bins: Array, dft_length: Array, sample_rate: Array, lower_edge_hertz: Array, upper_edge_hertz: Array
) -> Array:
    """Where the edges of the triangles lie among the bins of the transform, before they are cut to whole bins."""
    bands, length, rate = (int(v.reshape(-1)[0]) for v in (num_mel_bins, dft_length, sample_rate))
    low, high = (2595 * math.log10(1 + float(v.reshape(-1)[0]) / 700) for v in (lower_edge_hertz, upper_edge_hertz))
    mel = low + np.arange(bands + 2) * (high - low) / (bands + 2)
    return (length + 1) * 700 * (10 ** (mel / 2595) - 1) / rate


MEL_ERROR = 1e-5
"""Relative error of an edge in float32: a logarithm of up to 8 and an exponential pass on a hundred roundings."""


def mel_weight_matrix_scale(
    y: Array,
    num_mel_bins: Array,
    dft_length: Array,
    sample_rate: Array,
    lower_edge_hertz: Array,
    upper_edge_hertz: Array,
    /,
    **_attributes: object,
) -> Scale:
    """A quotient of small integers: 2 at |y|, with the rounding of the reference. Open in bands one of whose edges is
    within a rounding error of a whole bin."""
    edges = _mel_edges(num_mel_bins, dft_length, sample_rate, lower_edge_hertz, upper_edge_hertz)
    near = np.abs(edges - np.rint(edges)) <= MEL_ERROR * (np.abs(edges) + 1)
    near &= edges != 0
    unknown = near[:-2] | near[1:-1] | near[2:]
    if not is_float(y.dtype):
        return Scale(np.zeros(()), np.where(unknown, np.inf, 0.0), Rule.EXACT)
    return Scale(np.abs(y.astype(np.float64)), np.where(unknown, np.inf, 2.0), Rule.ULP)


@kernel("MelWeightMatrix", since=17, scale=mel_weight_matrix_scale)
def mel_weight_matrix(
    num_mel_bins: Array,
    dft_length: Array,
    sample_rate: Array,
    lower_edge_hertz: Array,
    upper_edge_hertz: Array,
    /,
    *,
    output_datatype: int = 1,
) -> Array:
    """Triangles over the bins of a one-sided transform, evenly spaced on the mel scale, of height 1.

    Args:
        num_mel_bins: how many; a scalar, as are all.
        dft_length: of the transform.
        sample_rate: in hertz.
        lower_edge_hertz: where the lowest triangle begins.
        upper_edge_hertz: one step of the scale before which the highest triangle ends, as in ONNX's own data.
        output_datatype: TensorProto data type of the result.

    Returns:
        (dft_length // 2 + 1, num_mel_bins).

    Raises:
        InvalidInputError: a triangle beyond the transform's bins.

    Spec: MelWeightMatrix, since 17
    """
    edges = _mel_edges(num_mel_bins, dft_length, sample_rate, lower_edge_hertz, upper_edge_hertz)
    whole = np.floor(edges).astype(np.int64)
    bins = int(dft_length.reshape(-1)[0]) // 2 + 1
    if whole.min() < 0 or whole[1:-1].max(initial=0) >= bins or whole.max() > bins:
        raise InvalidInputError(f"MelWeightMatrix: triangles over bins {whole.min()} to {whole.max()}, {bins} exist")
    j = np.arange(bins)[:, None]
    left, centre, right = whole[:-2], whole[1:-1], whole[2:]
    with np.errstate(all="ignore"):
        rising = np.where((j >= left) & (j <= centre), (j - left) / (centre - left), 0.0)
        falling = np.where((j > centre) & (j < right), (right - j) / (right - centre), 0.0)
    y = np.where(j == centre, 1.0, np.nan_to_num(rising) + np.nan_to_num(falling))
    return _stored(y, output_datatype, "MelWeightMatrix")
