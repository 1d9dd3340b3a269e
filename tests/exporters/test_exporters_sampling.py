"""Random numbers and choices as ONNX graphs, against the published answers and a plain computation in float64."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_arch.exporters.sampling import choosing_model, random_model
from onnx_arch.exporters.targets import NEWEST_OPSET

KNOWN = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]
"""Key, counter and bits of Threefry-2x32 with 20 rounds, as its authors publish them (Random123, kat_vectors)."""


def threefry(key, counter):
    """The bits by Python's integers, as the paper writes it down."""
    keys = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    x, y = ((c + k) % 2**32 for c, k in zip(counter, key, strict=True))
    for number in range(20):
        rotation = (13, 15, 26, 6, 17, 29, 16, 24)[number % 8]
        x = (x + y) % 2**32
        y = ((y << rotation | y >> 32 - rotation) % 2**32) ^ x
        if number % 4 == 3:
            group = number // 4 + 1
            x, y = (x + keys[group % 3]) % 2**32, (y + keys[(group + 1) % 3] + group) % 2**32
    return x, y


def session(model):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def draw():
    loaded = session(random_model(20))

    def run(seed, count, rows):
        sizes = {"seed": seed, "count": count, "rows": rows}
        return loaded.run(None, {name: np.array(value, np.int64) for name, value in sizes.items()})[0]

    return run


@pytest.fixture(scope="module")
def choose():
    loaded = session(choosing_model(20))

    def run(logits, uniform, temperature=1.0, top_k=0, top_p=1.0):
        feeds = {"logits": logits, "uniform": np.asarray(uniform, np.float32)}
        feeds |= {"temperature": np.array(temperature, np.float32), "top_p": np.array(top_p, np.float32)}
        return loaded.run(None, {**feeds, "top_k": np.array(top_k, np.int64)})[0]

    return run


@pytest.mark.parametrize(("key", "counter", "bits"), KNOWN)
def test_threefry_of_this_file_gives_the_published_answers(key, counter, bits):
    assert threefry(key, counter) == bits


@pytest.mark.parametrize("seed", [0, 1, 7, 2**32 - 1, 2**32, 0x03707344_13198A2E, 2**63 - 1])
def test_random_numbers_are_the_highest_bits_of_threefry(draw, seed):
    given = draw(seed, 9, 4)
    key = (seed % 2**32, seed >> 32)
    expected = [[(threefry(key, (step, row))[0] >> 8) / 2**24 for row in range(4)] for step in range(9)]
    assert given.dtype == np.float32
    assert np.array_equal(given, np.array(expected, np.float32))


def test_random_numbers_are_uniform_and_none_are_none(draw):
    given = draw(3, 400, 50).astype(np.float64)
    assert given.min() >= 0
    assert given.max() < 1
    n = given.size
    assert abs(given.mean() - 1 / 2) < 5 / np.sqrt(12 * n)
    counts, _ = np.histogram(given, bins=20, range=(0, 1))
    assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 50  # chi², 19 degrees of freedom: 1e-4
    neighbours = np.corrcoef(given[:, :-1].ravel(), given[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(n)
    assert draw(3, 0, 5).shape == (0, 5)


@pytest.mark.parametrize("opset", [18, 21, 23, min(NEWEST_OPSET, 25)])
def test_graphs_are_valid_and_the_same_at_every_opset(opset):
    feeds = {name: np.array(value, np.int64) for name, value in (("seed", 5), ("count", 3), ("rows", 2))}
    given = session(random_model(opset)).run(None, feeds)[0]
    assert np.array_equal(given, session(random_model(20)).run(None, feeds)[0])
    logits = np.random.default_rng(0).standard_normal((2, 3, 11)).astype(np.float32)
    rest = {"temperature": np.array(1, np.float32), "top_k": np.array(3), "top_p": np.array(0.9, np.float32)}
    rest |= {"logits": logits, "uniform": np.array([0.1, 0.9], np.float32)}
    chosen = session(choosing_model(opset)).run(None, rest)[0]
    assert np.array_equal(chosen, session(choosing_model(20)).run(None, rest)[0])


def test_no_temperature_takes_the_best_word_of_the_last_place(choose):
    logits = np.zeros((2, 3, 5), np.float32)
    logits[0, 2, 3] = logits[1, 2, 1] = 1
    logits[:, :2, 4] = 9  # earlier places say nothing
    assert choose(logits, [0.99, 0.0], temperature=0.0).tolist() == [3, 1]
    logits[1, 2, 4] = 1
    assert choose(logits, [0.0, 0.0], temperature=0.0).tolist() == [3, 1]  # of two that are best, the first


def candidates(scores, temperature, top_k, top_p):
    """Words from the best on with their probabilities in float64, before what is cut off is shared out."""
    order = np.argsort(-scores, kind="stable")[: top_k or None]
    z = scores[order].astype(np.float64) / temperature
    p = np.exp(z - z.max())
    p /= p.sum()
    before = np.cumsum(p) - p
    kept = before < top_p
    kept[0] = True
    return order[kept], p[kept] / p[kept].sum(), np.abs(before - top_p).min()


@pytest.mark.parametrize("seed", range(6))
def test_choices_are_those_of_float64_wherever_rounding_does_not_decide(choose, seed):
    rng = np.random.default_rng(seed)
    B, V = 300, 40
    logits = (3 * rng.standard_normal((B, 1, V))).astype(np.float32)
    uniform = rng.random(B).astype(np.float32)
    temperature, top_k, top_p = float(rng.uniform(0.3, 2)), int(rng.integers(0, V + 10)), float(rng.uniform(0.2, 1))
    given = choose(logits, uniform, temperature, top_k, top_p)
    judged = 0
    for row in range(B):
        words, p, margin = candidates(logits[row, 0], np.float32(temperature), top_k, np.float32(top_p))
        ends = np.cumsum(p)
        if min(margin, np.abs(ends - uniform[row]).min()) < 1e-5:
            continue
        judged += 1
        assert given[row] == words[np.searchsorted(ends, uniform[row], side="right")]
    assert judged > 0.9 * B


def test_choices_fall_as_often_as_their_probabilities_say(choose, draw):
    scores = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], np.float32)
    n = 20_000
    logits = np.tile(scores, (n, 1, 1))
    uniform = draw(11, 1, n)[0]
    for top_k, top_p in ((0, 1.0), (3, 1.0), (0, 0.8)):
        words, p, _ = candidates(scores, 1.0, top_k, top_p)
        counts = np.bincount(choose(logits, uniform, 1.0, top_k, top_p), minlength=6)
        assert counts[np.setdiff1d(np.arange(6), words)].sum() == 0
        assert ((counts[words] - n * p) ** 2 / (n * p)).sum() < 30  # chi² with at most 5 degrees of freedom: 2e-5


def test_extreme_choices_stay_within_what_is_kept(choose):
    logits = np.array([[[0.0, 10.0, 5.0]]] * 3, np.float32)
    nearly_one = np.float32(1 - 2**-24)
    assert choose(logits, [nearly_one] * 3, top_p=1e-6).tolist() == [1, 1, 1]
    assert choose(logits, [nearly_one] * 3, top_k=1).tolist() == [1, 1, 1]
    assert choose(logits, [nearly_one] * 3, top_k=99).tolist() == [0, 0, 0]  # more than there are: all
    assert choose(logits, [0.0] * 3).tolist() == [1, 1, 1]
