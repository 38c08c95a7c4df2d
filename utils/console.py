"""Terminal output of the programs: log and progress lines; and their end on Ctrl-C."""

import logging
import re
import signal
import sys
from typing import Any

import tqdm

# The project's packages, and the public modules that log.
_LOGGERS = (
  *("training", "conversion", "preprocessing", "tasks", "models", "text", "utils", "scripts"),
  *("modeling", "tokenization"),
)


_spelling: dict[str, str] = {}  # name of a setting -> its key, for a skin without flags


def spell_settings(keys: dict[str, str]) -> None:
  """Makes messages name settings by their keys instead of by flags: name -> key."""
  _spelling.update(keys)


def spelled(text: str) -> str:
  """Returns a message with --name, --name=value and --noname in the spelling of the skin in use.

  Messages name a setting by its flag. Example, with {"seed": "trainer.seed"}: "--seed=1 is bad"
  becomes "trainer.seed=1 is bad".
  """

  def key(match):
    name = match[1]
    if name in _spelling:
      return _spelling[name]
    if name.startswith("no") and name[2:] in _spelling:
      return f"{_spelling[name[2:]]}=false"
    return match[0]

  return re.sub(r"--([a-z][a-z0-9_]*)", key, text) if _spelling else text


class _TqdmHandler(logging.Handler):
  """Writes log records above the progress line instead of into it."""

  def emit(self, record):
    tqdm.tqdm.write(spelled(self.format(record)), file=sys.stderr)


def set_up_logging() -> None:
  """Sends the project's log to standard error, one plain line per message. For scripts."""
  handler = _TqdmHandler()
  handler.setFormatter(logging.Formatter("%(message)s"))
  for name in _LOGGERS:
    logger = logging.getLogger(name)
    if not logger.handlers:
      logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


_signals = []  # numbers of the SIGINT and SIGTERM received
_is_deferred = False  # whether the first signal waits for the end of a training step


class Interrupted(KeyboardInterrupt):
  """Ctrl-C or SIGTERM; `number` is the signal's."""

  def __init__(self, number: int):
    """Stores the number."""
    super().__init__()
    self.number = number


def watch_signals() -> None:
  """Records Ctrl-C and SIGTERM, and raises Interrupted, unless signals are deferred. For scripts.

  Python ignores exceptions raised in destructors, so training checks the record before each step.
  """

  def record(number, frame):
    del frame
    _signals.append(number)
    if _is_deferred and len(_signals) == 1:
      print(
        "Interrupted: this step is finished, then a checkpoint is saved. Interrupt again to end "
        "without it.",
        file=sys.stderr,
      )
    raise_if_due()

  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, record)


def defer_signals(is_deferred: bool) -> None:
  """Makes the first signal wait for raise_if_signalled; False raises again when it arrives."""
  global _is_deferred
  _is_deferred = is_deferred


def is_signalled() -> bool:
  """Returns whether Ctrl-C or SIGTERM has arrived."""
  return bool(_signals)


def raise_if_signalled() -> None:
  """Raises Interrupted if Ctrl-C or SIGTERM has arrived."""
  if _signals:
    raise Interrupted(_signals[-1])


def raise_if_due() -> None:
  """Raises Interrupted if Ctrl-C or SIGTERM has arrived, unless it is the first and deferred."""
  if len(_signals) > _is_deferred:
    raise_if_signalled()


def progress_bar(
  iterable=None,
  total: int | None = None,
  unit: str = "it",
  desc: str = "",
  initial: int = 0,
  bar_format: str | None = None,
) -> tqdm.tqdm:
  """Progress bar on a terminal; without one, a plain line every 20 seconds or more."""
  settings: dict[str, Any] = dict(
    total=total, unit=unit, desc=desc, initial=initial, bar_format=bar_format
  )
  if sys.stderr.isatty():
    return tqdm.tqdm(iterable, dynamic_ncols=True, **settings)
  return tqdm.tqdm(
    iterable, ncols=110, mininterval=20, maxinterval=60, ascii=True, file=_Lines(), **settings
  )


class _Lines:
  """File that turns tqdm's carriage returns into lines."""

  def write(self, text):
    text = text.replace("\x1b[A", "").strip()  # nested bars move the cursor up
    if text:
      sys.stderr.write(text + "\n")

  def flush(self):
    sys.stderr.flush()
