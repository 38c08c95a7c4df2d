"""Work shared out among processes of this machine.

Only this module and what the work needs is loaded in the processes, hence no TensorFlow here.
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

# Of a worker process: the function that makes its worker, and the worker, which does an item.
_make_worker: Callable[[], Callable[[Any], None]] | None = None
_worker: Callable[[Any], None] | None = None


def _start(make_worker, arguments):
  global _make_worker
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told as well, and ends us

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
  """Calls make_worker(*arguments) once in each process, and what it returns with each item.

  Args:
    make_worker: a function of a module; it and the arguments are sent to the processes.
    arguments: of make_worker.
    items: what is to be done, in any order.
    num_processes: number of processes.
    watch: called twice a second and at the end, to show progress.

  Raises:
    UserError: from the first item that failed, or when a process was killed.
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
          "a worker process was killed, perhaps for want of memory. Complete record "
          "files are kept: the same command goes on (with fewer processes it needs "
          "less memory)"
        ) from None
      raise
