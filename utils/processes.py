"""Worker processes on this machine.

This module does not import TensorFlow. A worker also imports the modules of its work.
"""

import concurrent.futures
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Any

from errors import UserError

CONTEXT = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang

# In a worker process: the function that makes its worker, and the worker, called with each item.
_make_worker: Callable[[], Callable[[Any], None]] | None = None
_worker: Callable[[Any], None] | None = None


def _start(make_worker, arguments):
  global _make_worker
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent receives it too, and ends its workers

  def end_with_parent():
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a worker process"
    parent.join()
    os._exit(1)

  threading.Thread(target=end_with_parent, daemon=True).start()
  _make_worker = lambda: make_worker(*arguments)
  logging.getLogger("tokenization").setLevel(logging.ERROR)  # the parent logs its warnings


def _work(item):
  global _worker
  # Made here and not in _start, whose errors would not reach the parent.
  if _worker is None:
    assert _make_worker is not None, "_start runs before the first item"
    _worker = _make_worker()
  _worker(item)


def run(
  make_worker: Callable[..., Callable[[Any], None]],
  arguments: tuple,
  items: Iterable[Any],
  num_processes: int,
  watch: Callable[[], None],
) -> None:
  """Calls make_worker(*arguments) once in each process, and the worker it returns with each item.

  Args:
    make_worker: a module-level function; it is pickled with its arguments.
    arguments: arguments of make_worker.
    items: work items, processed in any order.
    num_processes: number of processes.
    watch: called at least twice a second and at the end, to show progress.

  Raises:
    UserError: raised by the first item that failed, or because a process was killed.
  """
  with concurrent.futures.ProcessPoolExecutor(
    num_processes, CONTEXT, _start, (make_worker, arguments)
  ) as executor:
    try:
      futures = {executor.submit(_work, item) for item in items}
      while futures:
        done, futures = concurrent.futures.wait(futures, 0.5, concurrent.futures.FIRST_COMPLETED)
        watch()
        for future in done:
          future.result()
    except BaseException as error:
      executor.shutdown(wait=False, cancel_futures=True)
      for process in multiprocessing.active_children():
        process.terminate()
      if isinstance(error, concurrent.futures.process.BrokenProcessPool):
        raise UserError(
          "a worker process was killed, perhaps because memory ran out. Complete record "
          "files are kept; run the same command again to continue (fewer processes need "
          "less memory)"
        ) from None
      raise
