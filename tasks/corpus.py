"""Raw text for pretraining: one sentence per line, a blank line or a file's end ends a document.

  pieces, = split(list_files("text/*.txt"), 1)
  for number, sentence, num_bytes in read_sentences(pieces): ...

A corpus is the concatenation of its files. `split` cuts it into byte ranges, one per unit of work.
A unit reads the documents that begin in its range, the last one to its end. So each document is
read by exactly one unit, and no unit reads the whole corpus. Memory does not grow with the size of
a file, a document or a line. TensorFlow is imported only for remote paths.
"""

import dataclasses
import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterator

from errors import UserError
from utils import files

# A longer line is cut, at a space if it has one, and read as several sentences.
_BLOCK_BYTES = 1 << 20
# Documents are processed in groups of at least this number of tokens, about 2 MB of text.
WINDOW_TOKENS = 1 << 19


@dataclasses.dataclass(frozen=True)
class TextFile:
  """A file of the corpus and its size in bytes."""

  path: str
  size: int


@dataclasses.dataclass(frozen=True)
class Piece:
  """Byte range [start, end) of a file: the documents whose first line begins in it."""

  path: str
  start: int
  end: int


@dataclasses.dataclass
class Document:
  """A document, or a part of one that is too large for a window.

  Attributes:
    number: number of the document in its unit, the same for all its parts.
    sentences: token ids of each sentence.
  """

  number: int
  sentences: list[list[int]]


# First bytes of compressed files.
_PACKED = {
  "gzip": rb"\x1f\x8b\x08",
  "bzip2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
  "xz": rb"\xfd7zXZ\0",
  "zip": rb"PK\x03\x04",
  "zstd": rb"\x28\xb5\x2f\xfd",
  "tar": rb"(?s:.{257})ustar",
}


def packed_format(data: bytes) -> str:
  """Name of a file's compression or archive format, from its first bytes; "" for none."""
  return next((name for name, magic in _PACKED.items() if re.match(magic, data)), "")


def match_files(pattern: str) -> list[str]:
  """Files that a name or a glob matches, sorted.

  The longest leading part of a local pattern that exists is matched literally, so folders may have
  names such as lr[1e-3].
  """
  if "://" in pattern:
    import tensorflow as tf

    paths = [pattern] if tf.io.gfile.exists(pattern) else tf.io.gfile.glob(pattern)
    return sorted(path for path in paths if not tf.io.gfile.isdir(path))
  existing = pattern
  while existing and not os.path.exists(existing):
    existing = os.path.dirname(existing)
  paths = glob.glob(glob.escape(existing) + pattern[len(existing) :], recursive=True)
  return sorted(path for path in paths if os.path.isfile(path))


def _size(path):
  if "://" not in path:
    return os.path.getsize(path)
  import tensorflow as tf

  return tf.io.gfile.stat(path).length


def list_files(patterns: str, flag: str) -> list[TextFile]:
  """Files that match a comma-separated list of globs, sorted by path, each once.

  Raises:
    UserError: a pattern matches no file, all files are empty, or a file is compressed or cannot be
      read.
  """
  files = {}
  for pattern in filter(None, (part.strip() for part in patterns.split(","))):
    found = match_files(pattern)
    if not found:
      raise UserError(f"--{flag}: no file matches {pattern}")
    files.update((path, _size(path)) for path in found)
  if not any(files.values()):
    raise UserError(f"--{flag}={patterns}: the files are empty")
  for path in files:
    _check_unpacked(path)
  return [TextFile(path, files[path]) for path in sorted(files)]


def _check_unpacked(path):
  """Raises UserError if a file is compressed or cannot be read."""
  try:
    with files.open_file(path) as reader:
      name = packed_format(reader.read(512))
  except files.io_errors(path) as error:
    raise _cannot_read(path, error) from None
  if name:
    raise UserError(
      f"{path}: a {name} file; unpack it: a corpus is read in byte ranges, which compressed "
      f"files do not support"
    )


def _cannot_read(path, error):
  return UserError(f"{path}: cannot read: {getattr(error, 'strerror', None) or error}")


def fingerprint(texts: list[TextFile]) -> str:
  """SHA-256 of the files' names, their sizes, and nine samples of 4096 bytes each.

  A corpus may be too large to hash all of it.
  """
  digest = hashlib.sha256()
  for file in texts:
    with files.open_file(file.path) as reader:
      digest.update(f"{os.path.basename(file.path)}\0{file.size}\0".encode())
      for part in range(9):
        reader.seek(max(0, file.size - 4096) * part // 8)
        digest.update(reader.read(4096))
  return digest.hexdigest()


def find_text(texts: list[TextFile], text: str) -> TextFile | None:
  """Returns the first file with `text` in its first megabyte, or None; only that part is read."""
  for file in texts:
    with files.open_file(file.path) as reader:
      if text.encode() in reader.read(_BLOCK_BYTES):
        return file
  return None


def split(files: list[TextFile], num_units: int) -> list[list[Piece]]:
  """Cuts a corpus into units whose sizes differ by at most one byte."""
  total = sum(file.size for file in files)
  ends = [total * (unit + 1) // num_units for unit in range(num_units)]
  units = [[] for _ in ends]
  unit = offset = 0  # offset of the file's first byte in the corpus
  for file in files:
    start = 0
    while start < file.size:
      while ends[unit] <= offset + start:
        unit += 1
      end = min(file.size, ends[unit] - offset)
      units[unit].append(Piece(file.path, start, end))
      start = end
    offset += file.size
  return units


def _read_lines(reader, position: int) -> Iterator[tuple[int, bytes, bool]]:
  """Yields (offset, bytes without the newline, whether the line ends there) from `position` on."""
  reader.seek(position)
  rest = b""
  while block := reader.read(_BLOCK_BYTES):
    *lines, rest = (rest + block).split(b"\n")
    for line in lines:
      yield position, line, True
      position += len(line) + 1
    if len(rest) >= _BLOCK_BYTES:
      cut = rest.rfind(b" ") + 1
      if not cut:  # no space: cut before a character; its later bytes are 10xxxxxx
        cut = len(rest) - 1
        while cut > len(rest) - 4 and rest[cut] & 0xC0 == 0x80:
          cut -= 1
      yield position, rest[:cut], False
      position, rest = position + cut, rest[cut:]
  if rest:
    yield position, rest, True


def _line_start(reader, position: int) -> int:
  """Offset of the start of the line that contains byte `position` - 1; 0 at the file's start."""
  end = position - 1  # excluded: that byte may be the newline that ends the line
  while end > 0:
    start = max(0, end - _BLOCK_BYTES)
    reader.seek(start)
    newline = reader.read(end - start).rfind(b"\n")
    if newline >= 0:
      return start + newline + 1
    end = start
  return 0


def _is_blank(line: bytes) -> bool:
  """Returns whether a line is blank and ends a document; Unicode whitespace counts."""
  line = line.strip()
  return not line or (
    len(line) <= 64 and not line.isascii() and not line.decode("utf-8", "replace").strip()
  )


def _decode(line: bytes, path: str, position: int, errors: str) -> str:
  """Text of the line at offset `position` of a file; UserError names the line of a bad byte."""
  try:
    return line.decode("utf-8", errors).strip()
  except UnicodeDecodeError as error:
    bad = position + error.start
    with files.open_file(path) as reader:
      number = 1
      for start in range(0, bad, _BLOCK_BYTES):
        number += reader.read(min(_BLOCK_BYTES, bad - start)).count(b"\n")
    raise UserError(
      f"{path}: not UTF-8 at line {number} (byte {bad} of the file, "
      f"0x{line[error.start]:02x}); convert the file, or pass --errors=replace to "
      f"read such bytes as U+FFFD"
    ) from None


def _read_piece(piece: Piece, errors: str) -> Iterator[tuple[bool, str, int]]:
  """Yields (whether a document begins, sentence, its bytes) of a range of one file."""
  with files.open_file(piece.path) as reader:
    start = line_start = _line_start(reader, piece.start)
    begins = start == 0  # the next text begins a document
    is_mine = False  # the current document begins in the piece
    blank = True  # the line has been blank so far
    for position, line, line_ends in _read_lines(reader, start):
      next_line = position + len(line) + 1
      if position == 0:
        text = line.removeprefix(b"\xef\xbb\xbf")  # byte order mark
        position, line = len(line) - len(text), text
      if not _is_blank(line):
        if line_start >= piece.end and (begins or not is_mine):
          return
        is_mine = line_start >= piece.start if begins else is_mine
        if is_mine:
          yield begins, _decode(line, piece.path, position, errors), len(line) + line_ends
        begins = blank = False
      if line_ends:
        begins = begins or blank
        blank, line_start = True, next_line


def read_sentences(pieces: list[Piece], errors: str = "strict") -> Iterator[tuple[int, str, int]]:
  """Yields (number of the document in the unit, sentence, its size in bytes) of a unit.

  Args:
    pieces: ranges of the unit.
    errors: "strict", or "replace" to read bytes that are not UTF-8 as U+FFFD.

  Raises:
    UserError: a file cannot be read or is not UTF-8; names the file, line and byte.
  """
  number = -1
  for piece in pieces:
    try:
      for begins, sentence, num_bytes in _read_piece(piece, errors):
        number += begins
        yield number, sentence, num_bytes
    except files.io_errors(piece.path) as error:
      raise _cannot_read(piece.path, error) from None


def read_windows(
  sentences: Iterator[tuple[int, str, int]],
  encode: Callable[[str], list[int]],
  report: Callable[[int, int, int], None] = lambda *_: None,
  min_tokens: int = 1,
  window_tokens: int = WINDOW_TOKENS,
) -> Iterator[list[Document]]:
  """Groups a unit's sentences into windows: lists of documents of about `window_tokens` tokens.

  A window ends at the end of a document. Only a document of window_tokens or more is cut into
  parts, which go to different windows. Empty sentences and documents are left out.

  Args:
    sentences: from read_sentences.
    encode: sentence -> token ids.
    report: called about once per megabyte with the bytes, documents and tokens read since the last
      call.
    min_tokens: shorter documents are left out.
    window_tokens: size of a window.
  """
  window, size = [], 0  # complete documents, and their tokens
  part, part_size = Document(-1, []), 0  # of the current document
  is_continued = False  # an earlier window has a part of the current document
  read = [0, 0, 0]  # bytes, documents, tokens

  def close():
    nonlocal size
    if part_size >= (1 if is_continued else max(1, min_tokens)):
      window.append(part)
      size += part_size

  for number, sentence, num_bytes in sentences:
    if number != part.number:
      close()
      part, part_size, is_continued = Document(number, []), 0, False
      read[1] += 1
      if size >= window_tokens:
        yield window
        window, size = [], 0
    ids = encode(sentence)
    if ids:
      part.sentences.append(ids)
      part_size += len(ids)
    read[0] += num_bytes
    read[2] += len(ids)
    if read[0] >= _BLOCK_BYTES:
      report(*read)
      read = [0, 0, 0]
    if part_size >= max(window_tokens, min_tokens):
      yield [*window, part]
      window, size = [], 0
      part, part_size, is_continued = Document(number, []), 0, True
  close()
  report(*read)
  if window:
    yield window
