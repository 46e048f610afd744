"""Huffman's codes: by hand, there and back, and what does not go together."""

import numpy as np
import pytest

from compress.huffman import RUN, Segment, canonical_codes, code_lengths, cost, decode, encode, is_complete, num_runs


def packed(parts: list[np.ndarray]) -> tuple[bytes, list[Segment]]:
    """A stream of segments, and what decodes it."""
    segments, bits = [], []
    for symbols in parts:
        lengths = code_lengths(np.bincount(symbols))
        encoded = encode(symbols, lengths)
        segments.append(Segment(lengths, len(symbols), encoded.run_bits))
        bits.append(encoded.bits)
    return np.packbits(np.concatenate(bits)).tobytes(), segments


def test_a_known_word() -> None:
    # a 5, b 2, c 1, d 1, r 2. Merged: c+d 2, then with b 4, r ... every tree of this word has 23 bits.
    symbols = np.array(["abcdr".index(letter) for letter in "abracadabra"])
    lengths = code_lengths(np.bincount(symbols))
    assert lengths[0] == 1
    assert int(lengths[symbols].sum()) == cost(symbols) == 23


def test_canonical_words_and_their_bits_by_hand() -> None:
    lengths = np.array([2, 0, 1, 3, 3], dtype=np.uint8)
    assert canonical_codes(lengths)[[2, 0, 3, 4]].tolist() == [0b0, 0b10, 0b110, 0b111]
    encoded = encode(np.array([3, 2, 0, 4]), lengths)
    assert "".join(map(str, encoded.bits.astype(int))) == "110" + "0" + "10" + "111"
    assert encoded.run_bits.tolist() == [9]


def test_one_symbol_alone_needs_no_bits() -> None:
    stream, segments = packed([np.full(5000, 7)])
    assert stream == b""
    assert decode(stream, segments)[0].tolist() == [7] * 5000


@pytest.mark.parametrize("sizes", [[0], [1], [RUN - 1, RUN, RUN + 1], [3 * RUN + 5, 0, 2, 0], []])
def test_there_and_back_around_the_length_of_a_run(sizes) -> None:
    random = np.random.default_rng(3)
    parts = [random.geometric(0.3, size=size).clip(max=40) for size in sizes]
    stream, segments = packed(parts) if parts else (b"", [])
    found = decode(stream, segments)
    assert [symbols.tolist() for symbols in found] == [symbols.tolist() for symbols in parts]
    assert [len(segment.run_bits) for segment in segments] == [num_runs(size) for size in sizes]


def test_there_and_back_for_many_kinds_of_symbols() -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        kinds = int(random.integers(1, 257))
        odds = random.dirichlet(np.full(kinds, random.choice([0.02, 0.3, 5.0])))
        parts = [random.choice(kinds, size=int(size), p=odds) for size in random.integers(0, 4000, size=3)]
        stream, segments = packed(parts)
        for symbols, found in zip(parts, decode(stream, segments), strict=True):
            assert np.array_equal(symbols, found)


def test_it_is_as_short_as_the_entropy_allows() -> None:
    symbols = np.random.default_rng(0).geometric(0.2, size=20000).clip(max=60)
    odds = np.bincount(symbols)[1:] / len(symbols)
    entropy = -(odds[odds > 0] * np.log2(odds[odds > 0])).sum()
    assert entropy <= cost(symbols) / len(symbols) < entropy + 0.1


def test_words_stay_within_15_bits() -> None:
    counts = [1, 1]
    while len(counts) < 30:
        counts.append(counts[-1] + counts[-2])  # Fibonacci's numbers make the deepest tree: 29 bits
    lengths = code_lengths(np.array(counts))
    assert lengths.max() == 15
    assert is_complete(lengths)
    symbols = np.repeat(np.arange(30), np.minimum(counts, 50))
    encoded = encode(symbols, lengths)
    stream = np.packbits(encoded.bits).tobytes()
    assert np.array_equal(decode(stream, [Segment(lengths, len(symbols), encoded.run_bits)])[0], symbols)


def test_what_does_not_go_together_is_refused() -> None:
    stream, (segment,) = packed([np.random.default_rng(0).geometric(0.3, size=3000)])
    wrong = segment.run_bits.copy()
    wrong[0] += 1
    wrong[1] -= 1
    for changed, message in (
        (segment._replace(run_bits=wrong), "does not end where it should"),
        (segment._replace(run_bits=segment.run_bits[:-1]), "2 runs of code; expected 3"),
        (segment._replace(lengths=np.array([1, 2, 2, 2], dtype=np.uint8)), "make no code"),
        (segment._replace(lengths=np.array([1, 2], dtype=np.uint8)), "make no code"),
    ):
        with pytest.raises(ValueError, match=message):
            decode(stream, [changed])
    with pytest.raises(ValueError, match="bytes of code; expected"):
        decode(stream[:-1], [segment])
