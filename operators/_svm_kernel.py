"""Kernel functions of support vector machines, of values and of tracked ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidAttributeError
from ._class_scores import UNIT, value_of
from ._tracked import UNIFORM, Number, Tracked, matmul, through
from .scale import Array
from .transcendental import LIBRARY

KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


@dataclass(frozen=True)
class SvmKernel:
    """K(x, v) with its parameters.

    Attributes:
        kind: one of `KERNELS`.
        gamma: γ; so are `coef0` and `degree`.
    """

    kind: str
    gamma: float
    coef0: float
    degree: float

    def __call__(self, x: Number, vectors: Array) -> Number:
        """(N, F) and (V, F) -> (N, V): x·v, (γ x·v + c)^d, exp(−γ |x − v|²) or tanh(γ x·v + c)."""
        if self.kind == "RBF":
            return self._radial(x, vectors)
        products = matmul(x, vectors.T, vectors.shape[1])
        if self.kind == "LINEAR":
            return products
        inner = products * self.gamma + self.coef0
        return self._power(inner) if self.kind == "POLY" else self._tanh(inner)

    def _radial(self, x: Number, vectors: Array) -> Number:
        values = value_of(x)
        size = self._distance(values, vectors)
        y = np.exp(-self.gamma * size)
        if not isinstance(x, Tracked):
            return y
        slope = self._sensitivity(values, vectors)
        # each difference is rounded at its own size, squared, added: F + 3 half-units of the sum; γ · and exp
        own = y * (np.abs(self.gamma) * size * (vectors.shape[1] + 4) + LIBRARY)
        entered = x.bound.max(axis=1, keepdims=True, initial=0) * slope * np.abs(self.gamma) * y
        return Tracked(y, UNIFORM * (own**2 + entered**2), own + entered, np.abs(y))

    @staticmethod
    def _distance(x: Array, vectors: Array) -> Array:
        """Σ (x − v)²: (N, V), without cancellation; by blocks of vectors."""
        found = np.empty((len(x), len(vectors)), x.dtype).view(type(x))
        step = max(1, BLOCK // max(1, x.size))
        for start in range(0, len(vectors), step):
            found[:, start : start + step] = ((x[:, None] - vectors[None, start : start + step]) ** 2).sum(axis=2)
        return found

    @staticmethod
    def _sensitivity(x: Array, vectors: Array) -> Array:
        """Σ 2 |x − v| <= 2 √F |x − v|₂."""
        return 2 * np.sqrt(x.shape[1] * SvmKernel._distance(x, vectors))

    def _power(self, inner: Number) -> Number:
        values = value_of(inner)
        y = values**self.degree
        if not isinstance(inner, Tracked):
            return y
        reach = inner.bound * UNIT
        steepest = np.abs(self.degree) * (np.abs(values) + reach) ** (self.degree - 1)
        own = LIBRARY + np.abs(self.degree)  # pow, or as many products
        return through(inner, y, steepest, own * np.abs(y))

    def _tanh(self, inner: Number) -> Number:
        """Rounded at 1 where it is formed of exponentials."""
        y = np.tanh(value_of(inner))
        if not isinstance(inner, Tracked):
            return y
        nearest = np.tanh(np.maximum(np.abs(inner.value) - inner.bound * UNIT, 0.0))
        return through(inner, y, 1 - nearest**2, LIBRARY * np.abs(y))


BLOCK = 1 << 21
"""Differences that are formed at a time."""


def svm_kernel(op_type: str, kernel_type: str, kernel_params: Sequence[float] | None) -> SvmKernel:
    """The kernel function.

    Raises:
        InvalidAttributeError: another name, or no parameters where they are needed.
    """
    if kernel_type not in KERNELS:
        raise InvalidAttributeError(f"{op_type}: kernel_type={kernel_type!r}; allowed are {', '.join(KERNELS)}")
    if kernel_type != "LINEAR" and (not kernel_params or len(kernel_params) != 3):
        raise InvalidAttributeError(f"{op_type}: kernel_params={kernel_params}; gamma, coef0 and degree are needed")
    gamma, coef0, degree = (0.0, 0.0, 0.0) if kernel_type == "LINEAR" or not kernel_params else kernel_params
    return SvmKernel(kernel_type, gamma, coef0, degree)
