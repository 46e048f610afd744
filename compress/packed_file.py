"""Packed weights as bytes: all tensors of a net, exactly, in as few bytes as Deep Compression's coding needs.

**Reference**: Han et al., Deep Compression, ICLR 2016, arXiv:1510.00149, sections 2 to 4.

**Deviations**: nothing has to be told: weights of few different values become a codebook and indices, weights with many
zeros what is kept and distances, whatever made them so; filters that are a number times signs (XNOR-Net,
arXiv:1603.05279, section 3.1) become that number and bits. Codebooks and other numbers are stored in half precision
where they lose nothing by it.

The file, all numbers with the lowest byte first:

    8 bytes  "SWFTPACK"
    8 bytes  BLAKE2b of everything behind these 16 bytes
    8 bytes  how long the file is
    2 bytes  version of the format
    12 bytes how long header, tables and plain are, 4 bytes each; these three are deflated (zlib)
    header   JSON: the words that go along (name, classes, options), and name, type, shape and coding of each tensor
    tables   of each coded tensor, once for distances and once for indices: how many code words, their lengths in
             4 bits each, the bits of each run in 2 bytes
    plain    codebooks and whatever has no code: their first bytes, their second bytes, and so on
    code     the Huffman code of the coded tensors, one right behind the other
    signs    of each tensor of signs a bit a weight, 1 for minus, each beginning with a new byte (from version 2 on; a
             file without any is of version 1)

Any damage changes the hash, which is compared before anything else is read. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from . import huffman, relative_index
from .coding import Account, Code, CodedLayer, account_of, code_layer, decode_layer, huffman_code
from .layers import Layer, check_keys, layers_of, value_for
from .sign_coding import account_of_signs, code_signs, decode_signs, is_signs

MAGIC = b"SWFTPACK"
SUFFIX = ".packed"
VERSION = 2
_HASH_BYTES = 8
_HASHED_FROM = len(MAGIC) + _HASH_BYTES
_FRONT = struct.Struct("<8s8sQH3I")
_MOST_NUMBERS = 1 << 28  # of all tensors together: what a file may make us set aside
_TYPES = {
    str(kind).removeprefix("torch."): kind
    for kind in (
        torch.float32, torch.float16, torch.bfloat16, torch.float64,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
}  # fmt: skip
_SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Packed(NamedTuple):
    """content: the file; accounts: what became of each layer, in the net's order; other: how many numbers of the net
    are not of layers (norms, biases).
    """

    content: bytes
    accounts: tuple[Account, ...]
    other: int


class Unpacked(NamedTuple):
    """state: name -> tensor, as it was packed to the last bit; metadata: the words that went along."""

    state: dict[str, Tensor]
    metadata: dict[str, str]


class _Entry(NamedTuple):
    """A tensor in the header. is_half: floats stored as halves; entries: how many, where it is coded, else None;
    clusters: length of the codebook, 0 where each entry has a value of its own; is_signs: a scale a row, and signs.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    is_half: bool
    entries: int | None
    clusters: int
    is_signs: bool = False

    @property
    def size(self) -> int:
        """Its numbers."""
        return int(np.prod(self.shape, dtype=object))

    @property
    def item(self) -> int:
        """Bytes of a number in the file."""
        return 2 if self.is_half else _TYPES[self.kind].itemsize

    @property
    def plain_count(self) -> int:
        """Numbers of it among the plain ones."""
        if self.is_signs:
            return self.shape[0]
        return self.size if self.entries is None else self.clusters or self.entries

    @property
    def sign_bytes(self) -> int:
        """Of it among the signs."""
        return -(-self.size // 8) if self.is_signs else 0

    def as_row(self) -> list[Any]:
        """In the header; without the last mark where it says nothing, as in version 1."""
        return list(self if self.is_signs else self[:-1])


def is_packed(start: bytes) -> bool:
    """Whether a file that begins like this is a packed one."""
    return start[: len(MAGIC)] == MAGIC


def pack(
    net: nn.Module,
    metadata: Mapping[str, str] | None = None,
    *,
    index_bits: int | Mapping[str, int] = relative_index.PAPER_BITS,
) -> Packed:
    """All parameters and buffers of a net as the bytes of a file, with words beside them.

    index_bits: of a distance, 1..8, one number or one by layer name or kind ("fc", "conv"). ValueError for numbers out
    of range, and for a tensor of a type that the file does not know.
    """
    layers = layers_of(net)
    check_keys(layers, index_bits, "index_bits")
    by_key = {layer.key: layer for layer in layers}
    stored = []
    for name, tensor in net.state_dict().items():
        layer = by_key.get(name)
        width = None if layer is None else value_for(layer, index_bits, "index_bits")
        stored.append(_store(name, tensor, layer, width))
    accounts = tuple(part.account for part in stored if part.account is not None)
    other = sum(part.entry.size for part in stored) - sum(account.weights for account in accounts)
    return Packed(_write(dict(metadata or {}), stored), accounts, other)


class _Stored(NamedTuple):
    """A tensor's part of a file."""

    entry: _Entry
    plain: np.ndarray
    code: Code | None
    account: Account | None
    signs: bytes = b""


def _store(name: str, tensor: Tensor, layer: Layer | None, index_bits: int | None) -> _Stored:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _TYPES:
        raise ValueError(f"{name} is of type {kind}; a packed file holds {', '.join(_TYPES)}")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    patterns = flat.view(_SIGNED[tensor.element_size()]).numpy().view(f"u{tensor.element_size()}")
    coded = None
    if layer is not None and tensor.dtype == torch.float32 and is_signs(patterns, tensor.shape):
        return _store_signs(name, tensor, layer, patterns)
    if layer is not None and index_bits is not None and tensor.is_floating_point():
        coded = code_layer(patterns, index_bits)
    plain = patterns if coded is None else coded.values
    halves = _as_halves(plain) if tensor.dtype == torch.float32 else None
    clusters = 0 if coded is None or coded.symbols is None else len(coded.values)
    entries = None if coded is None else len(coded.steps)
    entry = _Entry(name, kind, tuple(tensor.shape), halves is not None, entries, clusters)
    code = None if coded is None else huffman_code(coded)
    account = layer and account_of(layer, patterns, coded, code, index_bits or 0, entry.item)
    return _Stored(entry, plain if halves is None else halves, code, account)


def _store_signs(name: str, tensor: Tensor, layer: Layer, patterns: np.ndarray) -> _Stored:
    scales, signs = code_signs(patterns, tensor.shape)
    halves = _as_halves(scales)
    entry = _Entry(name, "float32", tuple(tensor.shape), halves is not None, None, 0, is_signs=True)
    account = account_of_signs(layer, len(patterns), len(scales), entry.item)
    return _Stored(entry, scales if halves is None else halves, None, account, signs)


def _as_halves(patterns: np.ndarray) -> np.ndarray | None:
    """Patterns of float32 as those of float16, if every number stays what it is."""
    numbers = patterns.view(np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        halves = numbers.astype(np.float16)
        same = np.array_equal(halves.astype(np.float32).view(np.uint32), patterns)
    return halves.view(np.uint16) if same else None


def _write(metadata: dict[str, str], stored: Sequence[_Stored]) -> bytes:
    tensors = [part.entry.as_row() for part in stored]
    words = dict(sorted(metadata.items()))  # safetensors gives them in another order each time
    header = json.dumps({"metadata": words, "tensors": tensors}, separators=(",", ":")).encode()
    segments = [segment for part in stored if part.code for segment in part.code.segments]
    bits = [part.code.bits for part in stored if part.code]
    code = np.packbits(np.concatenate(bits)).tobytes() if bits else b""
    parts = (header, _write_tables(segments), _write_plain([part.plain for part in stored]))
    deflated = [zlib.compress(part) for part in parts]
    signs = [part.signs for part in stored if part.entry.is_signs]
    length = _FRONT.size + sum(map(len, [*deflated, code, *signs]))
    front = _FRONT.pack(MAGIC, bytes(_HASH_BYTES), length, 2 if signs else 1, *map(len, deflated))
    hashed = b"".join([front[_HASHED_FROM:], *deflated, code, *signs])
    return MAGIC + _hash(hashed) + hashed


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_HASH_BYTES).digest()


def _write_tables(segments: Sequence[huffman.Segment]) -> bytes:
    parts = []
    for segment in segments:
        padded = np.append(segment.lengths, np.zeros(len(segment.lengths) % 2, dtype=np.uint8))
        nibbles = (padded[::2] | (padded[1::2] << 4)).astype(np.uint8)
        parts += [struct.pack("<H", len(segment.lengths)), nibbles.tobytes(), segment.run_bits.astype("<u2").tobytes()]
    return b"".join(parts)


def _write_plain(values: Sequence[np.ndarray]) -> bytes:
    """Numbers of one width together, byte by byte: what is alike in them lies side by side."""
    parts = []
    for item in _SIGNED:
        group = [numbers.astype(f"<u{item}") for numbers in values if numbers.itemsize == item]
        if group:
            parts.append(np.concatenate(group).view(np.uint8).reshape(-1, item).T.tobytes())
    return b"".join(parts)


def read_packed_metadata(content: bytes) -> dict[str, str]:
    """The words of a packed file, which is checked as a whole. Raises as `unpack`."""
    return _read_header(_check(content)[0])[0]


def unpack(content: bytes) -> Unpacked:
    """The tensors of a packed file. ValueError, in one line, for a file that is damaged, cut off, none of these or of a
    newer version.
    """
    header, tables, plain, rest = _check(content)
    metadata, entries = _read_header(header)
    try:
        code, signs = _split_signs(rest, entries)
        segments = _read_tables(tables, entries)
        symbols = iter(huffman.decode(code, segments))
        values = _read_plain(plain, entries)
        state = {}
        for entry, numbers in zip(entries, values, strict=True):
            patterns = numbers
            if entry.is_signs:
                patterns = decode_signs(numbers, signs[: entry.sign_bytes], entry.size)
                signs = signs[entry.sign_bytes :]
            if entry.entries is not None:
                steps = next(symbols)
                coded = CodedLayer(steps, next(symbols) if entry.clusters else None, numbers)
                patterns = decode_layer(coded, entry.size)
            state[entry.name] = _to_tensor(patterns, entry)
    except ValueError as error:
        raise ValueError(f"the packed file makes no sense: {error}") from None
    return Unpacked(state, metadata)


def _check(content: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Header, tables and plain numbers, inflated, and the code and signs of a file that is whole."""
    if not is_packed(content):
        raise ValueError("this is no packed file")
    if len(content) < _FRONT.size:
        raise ValueError(f"the packed file is cut off after {len(content)} bytes")
    _, stored_hash, length, version, *sizes = _FRONT.unpack_from(content)
    if len(content) < length:
        raise ValueError(f"the packed file is damaged or cut off: {len(content)} of {length} bytes")
    if _hash(content[_HASHED_FROM:]) != stored_hash:
        raise ValueError("the packed file is damaged: its checksum differs")
    if version > VERSION:
        raise ValueError(f"the packed file has format {version}, this program knows up to {VERSION}: update swiftsight")
    ends = np.cumsum([_FRONT.size, *sizes]).tolist()
    if version < 1 or ends[-1] > len(content):
        raise ValueError("the packed file makes no sense: its parts are longer than it is")
    header, tables, plain = (_inflate(content[begin:end]) for begin, end in pairwise(ends))
    return header, tables, plain, content[ends[-1] :]


def _split_signs(rest: bytes, entries: Sequence[_Entry]) -> tuple[bytes, bytes]:
    """What stands behind the plain numbers -> code and signs."""
    sign_bytes = sum(entry.sign_bytes for entry in entries)
    if sign_bytes > len(rest):
        raise ValueError(f"{len(rest)} bytes of code and signs; expected at least {sign_bytes}")
    return rest[: len(rest) - sign_bytes], rest[len(rest) - sign_bytes :]


def _inflate(deflated: bytes) -> bytes:
    """At most what the most numbers that a file may have would need."""
    worker = zlib.decompressobj()
    try:
        inflated = worker.decompress(deflated, 8 * _MOST_NUMBERS)
    except zlib.error as error:
        raise ValueError(f"the packed file makes no sense: {error}") from None
    if not worker.eof or worker.unused_data:
        raise ValueError("the packed file makes no sense: a part of it has no end")
    return inflated


def _read_header(header: bytes) -> tuple[dict[str, str], list[_Entry]]:
    try:
        content = json.loads(header)
        metadata = {str(word): str(meaning) for word, meaning in content["metadata"].items()}
        rows = [_Entry(row[0], row[1], tuple(row[2]), *row[3:]) for row in content["tensors"]]
        if not all(map(_is_sensible, rows)) or len({row.name for row in rows}) < len(rows):
            raise ValueError
        if sum(row.size + row.plain_count for row in rows) > _MOST_NUMBERS:
            raise ValueError
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise ValueError("the packed file makes no sense: its header describes no tensors") from None
    return metadata, rows


def _is_sensible(entry: _Entry) -> bool:
    numbers = [*entry.shape, entry.clusters, 0 if entry.entries is None else entry.entries]
    return (
        isinstance(entry.name, str)
        and entry.kind in _TYPES
        and isinstance(entry.is_half, bool)
        and (entry.kind == "float32" or not entry.is_half)
        and all(type(number) is int and 0 <= number <= _MOST_NUMBERS for number in numbers)
        and (entry.entries is None or entry.entries <= entry.size)
        and (entry.is_signs is False or _is_sensible_signs(entry))
    )


def _is_sensible_signs(entry: _Entry) -> bool:
    plain = entry.entries is None and entry.clusters == 0 and entry.kind == "float32"
    return entry.is_signs is True and plain and entry.size > 0 and len(entry.shape) > 1


def _read_tables(tables: bytes, entries: Sequence[_Entry]) -> list[huffman.Segment]:
    segments, place = [], 0
    for entry in entries:
        for _ in range(0 if entry.entries is None else 2 if entry.clusters else 1):
            (size,) = struct.unpack("<H", _cut(tables, place, 2))
            nibbles = np.frombuffer(_cut(tables, place + 2, -(-size // 2)), dtype=np.uint8)
            place += 2 + len(nibbles)
            lengths = np.stack([nibbles & 15, nibbles >> 4], axis=1).reshape(-1)[:size]
            run_bits = np.frombuffer(_cut(tables, place, 2 * huffman.num_runs(entry.entries or 0)), dtype="<u2")
            place += 2 * len(run_bits)
            segments.append(huffman.Segment(lengths, entry.entries or 0, run_bits))
    if place != len(tables):
        raise ValueError(f"{len(tables)} bytes of tables; expected {place}")
    return segments


def _cut(content: bytes, begin: int, size: int) -> bytes:
    part = content[begin : begin + size]
    if len(part) != size:
        raise ValueError(f"a part ends after {len(content)} bytes; expected {begin + size}")
    return part


def _read_plain(plain: bytes, entries: Sequence[_Entry]) -> list[np.ndarray]:
    """The inverse of `_write_plain`, as patterns of the tensors' own widths, in their order."""
    found: dict[int, np.ndarray] = {}
    place = 0
    for item in _SIGNED:
        group = [index for index, entry in enumerate(entries) if entry.item == item]
        counts = [entries[index].plain_count for index in group]
        content = _cut(plain, place, item * sum(counts))
        place += len(content)
        planes = np.frombuffer(content, dtype=np.uint8).reshape(item, -1)
        numbers = np.ascontiguousarray(planes.T).view(f"<u{item}").reshape(-1)
        if group:
            found |= zip(group, np.split(numbers, np.cumsum(counts)[:-1]), strict=True)
    if place != len(plain):
        raise ValueError(f"{len(plain)} bytes of plain numbers; expected {place}")
    return [
        found[index].view(np.float16).astype(np.float32).view(np.uint32) if entry.is_half else found[index]
        for index, entry in enumerate(entries)
    ]


def _to_tensor(patterns: np.ndarray, entry: _Entry) -> Tensor:
    """A tensor of its own memory."""
    signed = patterns.astype(f"i{patterns.itemsize}", copy=True)
    return torch.from_numpy(signed).view(_TYPES[entry.kind]).reshape(entry.shape)
