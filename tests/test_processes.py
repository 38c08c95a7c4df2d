"""Parallel work: each item is processed once; errors and killed processes are reported."""

import os
import signal

import pytest

from errors import UserError
from utils import processes


def make_worker(folder):
  with open(os.path.join(folder, f"made-{os.getpid()}"), "w"):
    pass

  def work(item):
    if item == "bad":
      raise UserError("this item is bad")
    if item == "killed":
      os.kill(os.getpid(), signal.SIGKILL)
    with open(os.path.join(folder, str(item)), "x"):  # a second time would be an error
      pass

  return work


def test_each_item_is_processed_once_with_few_workers(tmp_path):
  watched = []
  processes.run(make_worker, (str(tmp_path),), range(20), 2, lambda: watched.append(1))
  names = [path.name for path in tmp_path.iterdir()]
  assert {name for name in names if not name.startswith("made")} == {str(i) for i in range(20)}
  assert len(names) - 20 <= 2 and watched


@pytest.mark.parametrize("item,message", [("bad", "this item is bad"), ("killed", "was killed")])
def test_errors_reach_the_caller(tmp_path, item, message):
  with pytest.raises(UserError, match=message):
    processes.run(make_worker, (str(tmp_path),), [1, item], 1, lambda: None)
