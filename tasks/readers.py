"""Reads raw data: UTF-8 text, rows of TSV and CSV files, objects of JSON lines files.

Files compressed with gzip or bzip2 are unpacked while they are read.
"""

import bz2
import dataclasses
import gzip
import itertools
import logging
import math
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tensorflow as tf

from errors import UserError
from tasks import corpus
from utils import files
from utils.options import brief

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Columns:
  """Columns of a row's parts: names in the header, or numbers from 0.

  A text may have two columns (a title and a body), whose cells are joined by a space.

  Attributes:
    text_a: first or only text.
    text_b: second text of a pair.
    label: label.
    has_header: the file's first line names the columns.
    id: id of the row, copied to its prediction.
    weight: weight of the example in the training loss.
    language: language of the row, in a file of several languages.
  """

  text_a: str | int | tuple[int, ...]
  text_b: str | int | None = None
  label: str | int | None = None
  has_header: bool = True
  id: str | int | None = None
  weight: str | int | None = None
  language: str | int | None = None

  def parts(self) -> dict[str, Any]:
    """Name of a part -> its column, for the parts that have one."""
    return {
      name: column
      for name, column in vars(self).items()
      if name != "has_header" and column is not None
    }


# ---- Text ---------------------------------------------------------------------------------------


def read_bytes(path: str) -> bytes:
  """Contents of a file, unpacked if it is compressed with gzip or bzip2.

  Raises:
    UserError: the file cannot be read, is damaged, or is compressed in another format.
  """
  try:
    with tf.io.gfile.GFile(path, "rb") as reader:
      data = reader.read()
  except tf.errors.OpError as error:
    raise UserError(f"{path}: cannot read this file ({error.message})") from None
  return _unpack(data, path)


def read_text(path: str) -> str:
  """Text of a UTF-8 file, without byte order mark, unpacked as in read_bytes.

  Raises:
    UserError: the file is not UTF-8 (names the line of the bad byte), or cannot be unpacked.
  """
  data = read_bytes(path)
  try:
    return data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    raise UserError(
      f"{path}: line {line} is not UTF-8 (byte {error.start} of the file); "
      f"convert the file, e.g. with iconv"
    ) from None


def list_texts(folder: str) -> list[str]:
  """Text files (*.txt) of a folder, sorted; none if there is no such folder."""
  names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
  return sorted(os.path.join(folder, name) for name in names if name.endswith(".txt"))


def _unpack(data, path):
  """Returns the bytes decompressed."""
  name = corpus.packed_format(data)
  if name in ("gzip", "bzip2"):
    try:
      return _unpack((gzip if name == "gzip" else bz2).decompress(data), path)
    except (OSError, EOFError, ValueError, zlib.error) as error:
      raise UserError(f"{path}: the {name} file is damaged ({error})") from None
  if name:
    raise UserError(f"{path}: a {name} file; unpack it, or compress it with gzip or bzip2")
  return data


# ---- Rows of TSV and CSV files ------------------------------------------------------------------


def read_rows(path: str, file_format: str) -> Iterator[tuple[int, list[str]]]:
  """Yields (1-based number of a row's first line, cells).

  Windows line ends are accepted. Empty lines at the end are dropped; elsewhere an empty line is one
  empty cell.

  Args:
    path: file.
    file_format: "csv"; "tsv", see _is_quoted; or "unquoted", TSV without quoting, as in GLUE's
      files.

  Raises:
    UserError: a quoted cell of a CSV file does not end; names file and line.
  """
  text = read_text(path).rstrip("\r\n")
  if not text:
    return
  if file_format == "csv" or (file_format == "tsv" and _is_quoted(text)):
    if file_format == "tsv":
      log.info("%s: cells are quoted, as pandas and Excel write them", path)
    try:
      for number, cells in _split_quoted(text, "," if file_format == "csv" else "\t"):
        yield number, [_cell_value(cell) for cell in cells]
    except ValueError as error:
      raise UserError(f"{path}: {error}") from None
    return
  if file_format == "tsv":
    _warn_of_marks(path, text)
  # Not splitlines(): it would also break at U+0085 and U+2028, which sentences contain.
  for number, line in enumerate(text.split("\n"), 1):
    yield number, line.removesuffix("\r").split("\t")


def _warn_of_marks(path, text):
  """Logs a warning if cells of an unquoted file look quoted."""
  num_marked = len(re.findall(r'(?m)(?:^|(?<=\t))"[^\t\n]*"(?=[\t\r]|$)', text))
  if num_marked > text.count("\n") / 2:
    log.warning(
      "%s: read without quoting, although %d cells begin and end with a quotation mark. If these "
      "marks are not text, write the file as pandas does, with the marks within a cell doubled "
      '(R: qmethod="double")',
      path,
      num_marked,
    )


def _split_quoted(text, delimiter):
  r"""Yields (1-based number of a row's first line, cells with their quotation marks).

  Unlike the csv module, it does not limit a cell's length, and keeps the marks. Rows end with \n or
  \r\n, or with \r alone if the file has no other line end.
  """
  unquoted = re.sub('"[^"]*"', "", text)
  # In files whose rows end with \n, Python before 3.13 does not quote a cell with a lone \r.
  line_end, last = (
    (r"\r", r"\r") if "\r" in unquoted and "\n" not in unquoted else (r"\r*\n", r"\n")
  )  # \r\r\n: Windows line ends written in text mode
  pattern = re.compile(  # a cell, and the delimiter or line end after it
    rf'("[^"]*(?:""[^"]*)*"|(?!")[^{delimiter}{last}]*?)({delimiter}|{line_end}|\Z)'
  )
  position, line, first_line, cells = 0, 1, 1, []
  while True:
    match = pattern.match(text, position)
    if not match:
      is_closed = text.find('"', position + 1) > 0
      raise ValueError(
        f"line {line}: a cell begins with a quotation mark, but "
        f"{'text follows the mark that' if is_closed else 'no quotation mark'} "
        f"ends it (within a quoted cell, double the marks)"
      )
    cell, end = match.groups()
    cells.append(cell)
    if cell.startswith('"'):
      line += len(re.findall(line_end, cell))
    if end != delimiter:
      yield first_line, cells
      line += 1
      first_line, cells = line, []
    if not end:
      return
    position = match.end()


def _cell_value(cell):
  """A cell without the quotation marks of its writer: '"a ""b"" c"' -> 'a "b" c'."""
  return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _is_minimal(value, is_quoted, characters='"\t\n'):
  r"""Returns whether a cell is quoted as by a writer that quotes `characters`, maybe a lone \r."""
  return is_quoted == bool(re.search(f"[{characters}]", value)) or (is_quoted and "\r" in value)


# Writers of quoted TSV files: (value, is quoted) -> whether the writer writes a cell this way.
_WRITERS: tuple[Callable[[str, bool], bool], ...] = (
  # csv.QUOTE_MINIMAL, which is pandas' default; others also quote the empty cell
  lambda value, is_quoted: _is_minimal(value, is_quoted) or not value,
  # Excel
  lambda value, is_quoted: _is_minimal(value, is_quoted, '"\t\n,'),
  # csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, R
  lambda value, is_quoted: (
    is_quoted
    or bool(re.fullmatch(r"[-+\d.eE]*|nan|NA|[-+]?inf|-?Inf|True|False|TRUE|FALSE", value))
  ),
)


def _is_quoted(text):
  """Returns True if a TSV file's quotation marks are quoting, False if they are text.

  They are quoting if one of _WRITERS would write exactly these marks. Examples, for the texts
  a <tab> b and I "see" it:

    quoted                                         unquoted
    "a <tab> b"      (a cell with a tab)           "Hello       (no mark ends the cell)
    "I ""see"" it"   (marks within are doubled)    I "see" it   (a writer would quote this cell)
                                                   "Fine."      (no writer would quote this cell)

  One unquoted cell makes the file unquoted. An exception: '"I see.' and 'We go."' on consecutive
  lines of an unquoted file look like one quoted cell with a line break and a tab. Such a file is
  unquoted if its lines have the same number of cells.
  """
  if '"' not in text:
    return False
  writers, widths, crosses_rows = _WRITERS, set(), False
  try:
    for number, cells in _split_quoted(text, "\t"):
      for cell in cells:
        if number == 1 and '"' not in cell:
          continue  # the header may come from another writer
        value = _cell_value(cell)
        writers = [writer for writer in writers if writer(value, cell.startswith('"'))]
        crosses_rows = crosses_rows or ("\t" in value and "\n" in value and '"' not in value)
      if not writers:
        return False
      if cells != [""]:
        widths.add(len(cells))
  except ValueError:
    return False
  plain_widths = {line.count("\t") for line in text.split("\n") if line.strip("\r")}
  return len(plain_widths) > 1 or (len(widths) == 1 and not crosses_rows)


def find_columns(
  path: str, header: list[str], names: list[str | int], file_format: str
) -> list[int]:
  """Numbers, from 0, of the columns; names are looked up in the header.

  Raises:
    UserError: a name is not in the header, or is in it twice.
  """
  for name in names:
    if isinstance(name, int):
      continue
    if name not in header:
      raise UserError(
        f"{path}: no column {brief(name)} in the header, which has "
        f"{', '.join(map(brief, header)) or 'nothing'}"
        f"{_quotes_hint(header, name) or _separator_hint(header, file_format)}"
      )
    if header.count(name) > 1:
      raise UserError(
        f"{path}: the header has the column {brief(name)} {header.count(name)} times; rename all "
        f"but one"
      )
  return [name if isinstance(name, int) else header.index(name) for name in names]


def _quotes_hint(header, name):
  """Returns advice if the name is in the header with quotation marks."""
  return (
    "; the cells seem to be quoted: double the quotation marks within a cell"
    if f'"{name}"' in header
    else ""
  )


def _separator_hint(cells, file_format):
  """Returns advice if a row is one cell because the file has another separator than its format."""
  if len(cells) != 1:
    return ""
  if file_format != "csv" and "," in cells[0]:
    return "; with commas between the columns it is a CSV file: --task_name=csv"
  if file_format == "csv" and "\t" in cells[0]:
    return "; with tabs between the columns it is a TSV file: --task_name=tsv"
  if ";" in cells[0]:
    return "; the columns seem to be separated by semicolons: write the file with " + (
      "commas" if file_format == "csv" else "tabs"
    )
  return ""


def whole_rows(
  path: str,
  rows: Iterable[tuple[int, list[str]]],
  fault: Callable[[list[str]], str],
  skip_bad_rows: bool,
) -> Iterator[tuple[int, list[str]]]:
  """Yields the rows with the right number of cells; skips empty lines.

  Args:
    path: file, for messages.
    rows: from read_rows.
    fault: cells -> message with the number of cells that the row should have; "" if it is right.
    skip_bad_rows: leave out rows with a wrong number of cells, and log their number.

  Raises:
    UserError: a row has too many or too few cells and skip_bad_rows is off.
  """
  skipped = 0
  for number, row in rows:
    wanted = fault(row)
    if not wanted:
      yield number, row
    elif row == [""]:
      continue
    elif skip_bad_rows:
      skipped += 1
    else:
      raise UserError(
        f"{path}: line {number}: {len(row)} columns where {wanted}; fix the line, "
        f"or pass --skip_bad_rows to leave such rows out"
      )
  if skipped:
    log.warning("%s: left out %d rows with too few or too many columns", path, skipped)


# ---- JSON lines ---------------------------------------------------------------------------------


def read_jsonl(path: str) -> Iterator[tuple[int, dict]]:
  """Yields (1-based line number, object) of a file with one JSON object per line.

  Raises:
    UserError: a line is not valid JSON, or no object; see files.parse_json.
  """
  for number, line in enumerate(read_text(path).split("\n"), 1):
    if not line.strip():
      continue
    row = files.parse_json(
      line, f"{path}: line {number}", object_pairs_hook=_unique_keys, parse_constant=_no_constant
    )
    if not isinstance(row, dict):
      raise UserError(f"{path}: line {number}: not a JSON object but a {type(row).__name__}")
    yield number, row


def _unique_keys(pairs):
  values = dict(pairs)
  if len(values) < len(pairs):
    keys = [key for key, _ in pairs]
    raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r}")
  return values


def _no_constant(name):
  raise ValueError(f"{name} is not a JSON number")


def scalar_text(value: Any, place: str, key: str) -> str:
  """Text of a JSON string, number, boolean or null.

  A number has its shortest form, so 1.0 and 1 are both "1". Booleans are "true" and "false". Null
  is the empty text.

  Args:
    value: the value.
    place: file and line, for messages.
    key: the value's key, for messages.

  Raises:
    UserError: the value is a list, an object or a number out of range.
  """
  if isinstance(value, list | dict):
    kind = "a list" if isinstance(value, list) else "an object"
    raise UserError(f"{place}: the value of {brief(key)} is {kind}; a text or a number is expected")
  if value is None:
    return ""
  if isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, float):
    if not math.isfinite(value):  # 1e400
      raise UserError(
        f"{place}: the value of {brief(key)} is too large a number; write it as a text"
      )
    return str(int(value) if value.is_integer() else value)
  return str(value)


# ---- Parts of rows ------------------------------------------------------------------------------


def read_columns(
  path: str, columns: Columns, file_format: str = "tsv", skip_bad_rows: bool = False
) -> Iterator[tuple[int, dict[str, str]]]:
  """Yields (1-based line number, {name of a part: text}) of each row, for the parts of `columns`.

  Args:
    path: file.
    columns: wanted columns.
    file_format: "jsonl", or a format of read_rows.
    skip_bad_rows: leave out rows with too many or too few cells.

  Raises:
    UserError: a column is not in the header or is in it twice, a row has too many or too few cells
      (without skip_bad_rows), or a JSON value is a list or an object; names file and line.
  """
  read = _read_json_columns if file_format == "jsonl" else _read_table_columns
  return read(path, columns, file_format, skip_bad_rows)


def _read_json_columns(path, columns, *_):
  parts = columns.parts()
  for number, row in read_jsonl(path):
    place = f"{path}: line {number}"
    missing = [name for name in parts.values() if name not in row]
    if missing:
      raise UserError(
        f"{place}: no key {brief(missing[0])}; the keys are {', '.join(map(brief, row))}"
      )
    yield number, {part: scalar_text(row[name], place, name) for part, name in parts.items()}


def _read_table_columns(path, columns, file_format, skip_bad_rows):
  rows = read_rows(path, file_format)
  first_rows = []  # up to the row that sets the number of columns
  for number, row in rows:
    first_rows.append((number, row))
    if columns.has_header or row != [""]:
      break
  if not first_rows:
    if columns.has_header:
      raise UserError(f"{path}: the file is empty; a header line is expected")
    return
  first_line, first = first_rows[-1]
  # Each part becomes the list of its columns, whose cells are joined.
  groups = {
    part: find_columns(
      path, first, list(column) if isinstance(column, tuple) else [column], file_format
    )
    for part, column in columns.parts().items()
  }
  required = 1 + max(itertools.chain(*groups.values()))
  if not columns.has_header:
    rows = itertools.chain(first_rows, rows)
    required = max(required, len(first))  # without a header, a missing cell cannot be identified

  def fault(row):
    if len(row) > len(first):
      return f"{'the header' if columns.has_header else f'line {first_line}'} has {len(first)}" + (
        "" if file_format == "unquoted" else " (a cell with the separator in it must be quoted)"
      )
    if len(row) < required:
      return f"at least {required} are needed{_separator_hint(row, file_format)}"
    return ""

  for number, row in whole_rows(path, rows, fault, skip_bad_rows):
    yield (
      number,
      {
        part: " ".join(filter(None, (row[column] for column in group)))
        for part, group in groups.items()
      },
    )
