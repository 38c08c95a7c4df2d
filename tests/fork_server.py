"""Runs programs in forked processes that have TensorFlow loaded; importing it takes seconds.

Each line of standard input is a JSON list: path of a Python program, arguments, environment, path
for its standard output, path for its standard error. The exit status of each is printed.
TensorFlow runs no operation before the fork, so it has no threads that the fork would lose. The
modules of the repository are not loaded: each program imports them as in a process of its own.
"""

import gc
import json
import os
import signal
import sys
import types

import sklearn.metrics  # noqa: F401
import tensorflow  # noqa: F401

SECONDS = 300


def run(path, args, environment, out, err):
  """Runs a program as `python path args` does, and ends this process."""
  signal.alarm(SECONDS)
  for number, name in enumerate((os.devnull, out, err)):
    descriptor = os.open(name, os.O_WRONLY if number else os.O_RDONLY)
    os.dup2(descriptor, number)
    os.close(descriptor)
  os.environ.clear()
  os.environ.update(environment)
  sys.argv = [path, *args]
  sys.path[0] = os.path.dirname(path)
  program = sys.modules["__main__"] = types.ModuleType("__main__")
  program.__file__ = path
  with open(path, encoding="utf-8") as reader:
    code = compile(reader.read(), path, "exec")
  exec(code, program.__dict__)
  sys.exit()


if __name__ == "__main__":
  gc.freeze()  # a collection would copy the memory that is shared with the server
  for line in sys.stdin:
    child = os.fork()
    if not child:
      run(*json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
