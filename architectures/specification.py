"""What an architecture states of itself as data: graphs, ports, axes, checkpoint layouts, image preprocessing.

Nothing here needs torch; example inputs are drawn with NumPy, so the same seed gives the same bytes everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    import numpy as np

FLOAT = "float"
"""dtype of a port that follows the dtype of the export."""


@dataclass(frozen=True)
class Axis:
    """A size that may differ from call to call.

    Attributes:
        name: the symbol in the ONNX graph.
        size: size in the test data, and the size that stays when the axis is frozen.
        sweep: sizes at which an export with this axis dynamic is proved.
        dynamic: left symbolic unless the caller says otherwise.
    """

    name: str
    size: int
    sweep: tuple[int, ...] = (1, 2, 3, 8)
    dynamic: bool = True


@dataclass(frozen=True)
class Port:
    """One input or output tensor of a graph.

    Attributes:
        name: its name in the ONNX graph; nested states are flattened (`past_key_values.0.key`).
        shape: per dim a size, an axis ("batch"), a sum of axes ("past+sequence"), or of an output a multiple of an
            axis ("8*height") or a part of it ("height/8").
        dtype: "float" follows the export; else a NumPy dtype name ("int64", "bool").
        values: how example inputs are drawn: "normal", "integers" (uniform below `high`), "ones", "zeros", "mask"
            (ones and zeros, with a one in every row), or "constant" (`high` everywhere).
        high: exclusive upper limit of "integers".
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str = FLOAT
    values: str = "normal"
    high: int = 2

    def sizes(self, axes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape at given axis sizes."""
        return tuple(dim if isinstance(dim, int) else _size(dim, axes) for dim in self.shape)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        """An example value of `shape`; `dtype` is the export's floating-point type."""
        import numpy as np  # noqa: PLC0415 - listing the architectures does without

        stored = dtype if self.dtype == FLOAT else np.dtype(self.dtype)
        match self.values:
            case "normal":
                return rng.standard_normal(shape).astype(stored)
            case "integers":
                return rng.integers(0, self.high, shape).astype(stored)
            case "ones":
                return np.ones(shape, stored)
            case "zeros":
                return np.zeros(shape, stored)
            case "constant":
                return np.full(shape, self.high, stored)
            case "mask":
                kept = rng.random(shape)
                return (kept >= np.minimum(kept.max(axis=-1, keepdims=True, initial=0), 0.5)).astype(stored)
        allowed = "normal, integers, ones, zeros, constant, mask"
        raise InvalidArgumentError(f"port {self.name}: values={self.values!r}; allowed are {allowed}")


def _size(dim: str, axes: Mapping[str, int]) -> int:
    """A sum of axes, each perhaps with a factor before it or a divisor behind it."""
    return sum(_term(term, axes) for term in dim.split("+"))


def _term(term: str, axes: Mapping[str, int]) -> int:
    factor, _, rest = term.rpartition("*")
    name, _, divisor = rest.partition("/")
    return int(factor or 1) * axes[name] // int(divisor or 1)


@dataclass(frozen=True)
class ImagePreprocessing:
    """How a photograph becomes the input of a graph that has one: resized (bilinear), cropped, in [0, 1], normalised.

    Attributes:
        resize: length of the shorter side after resizing, in pixels.
        crop: height and width cut from the centre, in pixels.
        mean: subtracted per channel (RGB).
        std: divided by per channel.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def imagenet_preprocessing(image_size: int) -> ImagePreprocessing:
    """The evaluation transform of ImageNet models: resize to 256, crop 224, normalise; scaled to other sizes."""
    resize = image_size * 256 // 224
    return ImagePreprocessing(resize, image_size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Literal:
    """A constant argument that is itself a string, among input names."""

    value: str


@dataclass(frozen=True)
class GraphSpec:
    """One ONNX graph of an architecture; most have one, an encoder-decoder has several.

    Attributes:
        name: file stem of the graph where there are several.
        inputs: in the order of the graph.
        outputs: in the order in which the module's results flatten.
        axes: every axis that the ports name.
        arguments: the positional arguments of `forward` as a nest whose strings are input names and whose other leaves
            are constants (`Literal` holds a string that is one); None is one per input, in order.
        keywords: its keyword arguments, likewise.
        part: from the built module to the one whose `forward` this graph is; None is the module itself.
        image_preprocessing: where an input is a photograph.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    axes: tuple[Axis, ...]
    arguments: tuple[Any, ...] | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    part: Callable[[Any], Any] | None = None
    image_preprocessing: ImagePreprocessing | None = None

    def sizes(self, **given: int) -> dict[str, int]:
        """Size of every axis: its own, or the one given.

        Raises:
            InvalidArgumentError: an axis that the graph does not have, or a negative size.
        """
        known = {axis.name: axis.size for axis in self.axes}
        for name, size in given.items():
            if name not in known or size < 0:
                raise InvalidArgumentError(
                    f"{self.name}: {name}={size}; axes are {', '.join(known)}, sizes are not negative"
                )
        return known | given

    def example_inputs(self, *, seed: int = 0, dtype: Any = "float32", **sizes: int) -> dict[str, np.ndarray]:
        """Seeded inputs by name, at the axes' own sizes or those given (`batch=3`).

        Args:
            seed: of the generator; every input draws from it in order.
            dtype: what "float" ports become.
            sizes: axis sizes.

        Raises:
            InvalidArgumentError: an axis that the graph does not have.
        """
        import numpy as np  # noqa: PLC0415 - listing the architectures does without

        rng = np.random.default_rng(seed)
        axes = self.sizes(**sizes)
        return {port.name: port.draw(rng, port.sizes(axes), np.dtype(dtype)) for port in self.inputs}

    def argument_names(self) -> tuple[Any, ...]:
        """The positional arguments as a nest of input names."""
        return tuple(port.name for port in self.inputs) if self.arguments is None else self.arguments


@dataclass(frozen=True)
class TextGeneration:
    """How words are appended to the output, one by one.

    The module that is built has a method `score(input_ids, attention_mask, words)` that gives the logits (B, T, vocab)
    of texts so far, (B, T), without a cache: exports hold the loop against it.

    Attributes:
        decoder: name of the graph that is run for every word; its cache goes round.
        vocab_size: words there are.
        encoder: name of the graph that reads the prompt first; "" for a decoder that goes on with the prompt itself.
        eos_token_id: the word that ends a text; None where nothing does.
        pad_token_id: what stands behind it in a batch.
        start_token_id: the decoder's first word, where there is an encoder.
        longest: most words that a text may have; None where there is no limit.
    """

    decoder: str
    vocab_size: int
    encoder: str = ""
    eos_token_id: int | None = None
    pad_token_id: int = 0
    start_token_id: int = 0
    longest: int | None = None


@dataclass(frozen=True)
class PictureGeneration:
    """How noise becomes pictures, step by step: the graph `unet` estimates it.

    With prompts, the graph `text_encoder` reads them; where diffusion works on latents, `vae_decoder` makes pictures of
    them; the sampler "ddpm" takes its steps by the graph `backward_step`.

    Attributes:
        sampler: "ddim", or "ddpm", which adds noise in every step.
        num_steps: that are taken unless others are asked for.
        channels: of what is denoised.
        size: of what is denoised, in height and width, unless another is asked for.
        factor: how many times larger the picture is.
        schedule: of the noise, the fields of a `NoiseSchedule`.
        latent_scale: what latents were multiplied with.
        guidance_scale: unless another is asked for.
        num_positions: what prompts are padded to; 0 where there are none.
        vocab_size: of the prompts' words.
        start_token_id: the first word of every prompt.
        end_token_id: the last.
        pad_token_id: what stands behind it.
    """

    sampler: str
    num_steps: int
    channels: int
    size: int
    factor: int
    schedule: Mapping[str, Any]
    latent_scale: float = 1.0
    guidance_scale: float = 1.0
    num_positions: int = 0
    vocab_size: int = 0
    start_token_id: int = 0
    end_token_id: int = 0
    pad_token_id: int = 0


@dataclass(frozen=True)
class TokenPictureGeneration:
    """How a picture is written token by token: the graph `transformer` scores them, `decoder` makes a picture of them.

    Attributes:
        text_length: words of a prompt; a shorter one is padded with the padding words of its positions.
        text_vocab_size: words there are; the first padding word has this number.
        image_start: number of the first picture token.
        num_codes: picture tokens there are.
        start_token_id: what stands before the prompt.
        grid_size: height and width of the picture in tokens.
    """

    text_length: int
    text_vocab_size: int
    image_start: int
    num_codes: int
    start_token_id: int
    grid_size: int


Generation = TextGeneration | PictureGeneration | TokenPictureGeneration


@dataclass(frozen=True)
class CheckpointLayout:
    """How the keys of a published checkpoint become the module's own, and how they are written back.

    A weight that a checkpoint stores under two keys (GPT-2's head is its token embedding, T5's three embeddings are
    `shared`) is renamed to one key: that is allowed where both tensors are equal, and refused where they are not.

    Attributes:
        name: whose layout ("torchvision", "huggingface", …).
        renames: (pattern, replacement) of `re.sub`, applied in order to every key; a key that becomes "" is dropped.
        transposed: patterns of the module's keys whose 2-D tensors are stored transposed.
        optional: patterns of the module's keys that may be missing.
        restores: (pattern, replacement) of `re.sub`, applied in order to every key of the module: the way back. With
            `renames` but without these, such a checkpoint is read and not written. A key that becomes "" is not written
            (a tied weight that the ecosystem stores once).
        pointwise: patterns of the module's keys whose 2-D tensors are stored as filters over all that they see,
            (C_out, C_in, h, w), and read in this order; written as 1×1 ones.
        files: where a folder has several files: the file of every first word of a key (`unet.conv_in.weight` is key
            `conv_in.weight` of {"unet": "unet/diffusion_pytorch_model.safetensors"}). One file else.
        skipped: patterns of checkpoint keys to leave out before anything else (averages beside the weights, …).
        prefixes: for layouts that number their blocks: from the beginning of a checkpoint's key, up to a dot, to the
            beginning of the module's; the longest one counts. Read in both directions, before `renames` and after
            `restores`.
    """

    name: str
    renames: tuple[tuple[str, str], ...] = ()
    transposed: tuple[str, ...] = ()
    optional: tuple[str, ...] = (r"num_batches_tracked$",)
    restores: tuple[tuple[str, str], ...] = ()
    pointwise: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    skipped: tuple[str, ...] = (r"^model_ema\.",)
    prefixes: Mapping[str, str] = field(default_factory=dict)

    def rename(self, key: str) -> str:
        """The module's key of a checkpoint's key; "" if it is not taken over."""
        if _matches(self.skipped, key):
            return ""
        return _substituted(self.renames, _replaced(self.prefixes, key))

    def restore(self, key: str) -> str:
        """The checkpoint's key of the module's key; "" if it is not written."""
        return _replaced(self._prefixes_back, _substituted(self.restores, key))

    @cached_property
    def _prefixes_back(self) -> Mapping[str, str]:
        return {own: theirs for theirs, own in self.prefixes.items()}

    @property
    def is_written(self) -> bool:
        """Whether checkpoints of this layout can be written: there is a way back."""
        return bool(self.restores) or not self.renames

    def is_transposed(self, key: str) -> bool:
        """Whether the module's `key` is stored transposed."""
        return _matches(self.transposed, key)

    def is_pointwise(self, key: str) -> bool:
        """Whether the module's `key` is stored as 1×1 filters."""
        return _matches(self.pointwise, key)

    def is_optional(self, key: str) -> bool:
        """Whether the module's `key` may be missing from a checkpoint."""
        return _matches(self.optional, key)


def _matches(patterns: tuple[str, ...], key: str) -> bool:
    return any(re.search(pattern, key) for pattern in patterns)


def _replaced(prefixes: Mapping[str, str], key: str) -> str:
    """The key with its longest beginning that `prefixes` has replaced."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1) if prefixes else ():
        found = prefixes.get(".".join(parts[:length]))
        if found is not None:
            return ".".join((found, *parts[length:]))
    return key


def _substituted(pairs: tuple[tuple[str, str], ...], key: str) -> str:
    for pattern, replacement in pairs:
        key = re.sub(pattern, replacement, key)
    return key


PLAIN = CheckpointLayout("onnx-arch")
"""Keys as the module has them."""
