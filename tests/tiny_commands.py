"""Runs many commands of the scripts in processes that share one import of TensorFlow.

As a program (`python tests/tiny_commands.py FOLDER`): reads a JSON list [extent, script,
*arguments] a line, forks, and runs the script there in FOLDER, as __main__. Answers each line with
the exit status; the output is in FOLDER/output.txt.
"""

import argparse
import json
import os
import runpy
import subprocess
import sys
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Commands:
  """A process that runs commands in a folder."""

  def __init__(self, folder):
    self._output = os.path.join(folder, "output.txt")
    self._server = subprocess.Popen(
      [sys.executable, os.path.abspath(__file__), str(folder)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=dict(os.environ, PYTHONPATH=ROOT, CUDA_VISIBLE_DEVICES="", TF_CPP_MIN_LOG_LEVEL="3"),
    )

  def run(self, script, *arguments, extent="all"):
    """Runs a command; returns (exit status, output).

    Args:
      script: path of the script.
      *arguments: its arguments.
      extent: "flags" parses them; "settings" does all of --validate_only but the graphs, which
        take seconds; "all" runs the script.
    """
    command = [extent, script, *map(str, arguments)]
    self._server.stdin.write(json.dumps(command) + "\n")
    self._server.stdin.flush()
    status = int(self._server.stdout.readline())
    with open(self._output, errors="replace") as reader:
      return status, reader.read()

  def close(self):
    """Ends the process."""
    self._server.stdin.close()
    self._server.wait()
    self._server.stdout.close()


def _parse_flags_only():
  """Replaces the main of absl and of argparse by the parser of their flags."""
  from absl import app

  def run(main, argv=None, flags_parser=None):
    rest = flags_parser(sys.argv)
    sys.exit(f"no flag: {rest[1]}" if len(rest) > 1 else 0)

  parse = argparse.ArgumentParser.parse_args

  def parse_args(parser, *_):
    parse(parser)
    sys.exit(0)

  app.run, argparse.ArgumentParser.parse_args = run, parse_args


def _run(extent, script, *arguments):
  """Runs a script in this process; returns the exit status."""
  from training import dry_run

  sys.argv = [script, *arguments]
  if extent == "flags":
    _parse_flags_only()
  elif extent == "settings":
    dry_run.build_graphs = dry_run.compile_and_step = lambda *_: {}
  try:
    runpy.run_path(script, run_name="__main__")
  except SystemExit as ended:
    if isinstance(ended.code, str):
      print(ended.code, file=sys.stderr)
    return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
  except BaseException:
    traceback.print_exc()
    return 1
  return 0


def _serve(folder):
  import tensorflow  # noqa: F401 (before the forks)

  from training import driver, jobs, tf_compat  # noqa: F401

  tf_compat.load()

  os.chdir(folder)
  for line in sys.stdin:
    child = os.fork()
    if not child:
      output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
      os.dup2(output, 1)
      os.dup2(output, 2)
      status = _run(*json.loads(line))
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
  _serve(sys.argv[1])
