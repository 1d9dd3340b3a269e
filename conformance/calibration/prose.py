"""What docs/calibration.md says beside its tables."""

from __future__ import annotations

from .data import LENGTHS
from .trials import PROMISE

HEAD = """# Calibration of the verdict

How often [the verdict](verdict.md) is wrong, counted: correct results that it calls wrong, and wrong ones that it
accepts. Written by `make calibration`; every number below is from that run."""

READING = f"""## How to read this

A *case* is one call of one operator on one kind of data. It is computed in float32 (or the narrower type of its inputs)
by *correct implementations* that differ in the order of their sums, in their formulas, in who wrote them (NumPy, ONNX
Runtime at every optimisation level, PyTorch), and by implementations with one *fault* each. Every result is judged as
`onnx-arch check` judges a node, and beside it by the fixed tolerances in use: ONNX's backend tests (rtol 1e-3, atol
1e-7), ONNX Runtime's operator tests (1e-4, 1e-5), Polygraphy (1e-5 or 1e-5) and OpenVINO's layer tests (1e-2 or 1e-2).

A fault is *promised* to be found if it moves an element by more than {PROMISE:g} · u · s · √k from where the same
implementation without it has it: u half a unit in the last place, s the error scale, k the growth of its sums (for
`ulp`: the allowed half-units; for `exact`: any change). A fault that changes nothing on a case's data is not counted
there.

Data: S0 signed (normal), S1 positive, S2 wide range (2^±20), S3 cancelling (pairs of ±v but for 1e-4), S4 constant
(one operand constant), S5 TOSA-like (one summand of 1 among small ones); beside them rectified (behind a ReLU) and
equal (all summands the same). Sums have 1 to {LENGTHS[-1]:,} summands, outputs 1 to 1,000,000 elements."""

FALSE_ALARMS = "Correct results that are called wrong: by us, and by each fixed tolerance."

MISSES = """Promised faults that are accepted. `like a correct one`: those of our misses whose deviation is no larger
than that of a correct implementation of the same case, so that no rule on that deviation can find them without a false
alarm. `smaller` faults are below the promise; `found` says how many of them we call wrong all the same."""

UNTOLD = """**Sums of equal summands.** Within a power of two, each addition of the same value to a float32 sum is
rounded the same way. Such roundings do not cancel: a loop over K equal values may be off by K / 3 half-units, or by
nothing, and which of the two depends on the bits of the value and on the number of lanes or the size of the blocks. All
outputs are the same sum, so that the tensor says no more than one number. The witness adds the very summands up in
several orders and takes the largest relative error that any of these loops has anywhere on its way; {count:,} correct
sums of equal values, in blocks, lanes and stretches of 2 to 512, were off by up to {reach:.2f} times that. It accepts
twice as much, and a fault that moves the result by less is one that another correct order would have moved it by.

**The precision of equal factors.** Where all products are the same, TF32 inputs move all outputs by the same factor, as
such a loop does. Narrow inputs are told by how their effect varies over a tensor, and here it does not.

**Flushing.** In types narrower than float32, a value below the smallest normal number may be flushed to zero, if the
tensor holds no such value elsewhere; a buffer that was not written, and holds zeros, looks the same.

**Few outputs.** An effect that is a share q of the roundings of correct sums shows in T outputs with q · √T standard
errors; the verdict asks for {MATCHED:g}. Where TF32 inputs stand beside large products that they hold exactly (S5),
what they change can be smaller than what float32 sums change: q = 0.6 in the matrix products with K = 9216, for which
384 outputs are enough and 72 are not; q = 0.02 in the convolution with 49 products of one, for which it would take
360,000 outputs. Such a result is as accurate as float32. And a single output is a single number: TF32 moves the one sum
of 4,608 positive products by six standard deviations of the random walk of its roundings, and eight are accepted."""

TF32_TEXT = """Products of inputs rounded to ten fraction bits: how many of the results are called wrong, by K (MatMul,
Gemm, Conv, ConvTranspose, Einsum; inputs that TF32 holds exactly are not counted). A dagger is a result that was not
told and is no farther off than that of a correct implementation of the same case: TF32 does less to it than float32."""

APART_TEXT = """Right by design, but not sums of the operator's own products: a class of its own, which the verdict does
not take for float32 products where their errors are larger. Not counted above."""

WRONG_TEXT = """ONNX Runtime at every level and PyTorch are correct variants where they run a case, but for these, where
their deviation was traced to a fault of theirs."""
