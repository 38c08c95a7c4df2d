"""Each command and program of docs/serving.md runs."""

import os
import re
import subprocess
import sys

import pytest
import tiny
import tiny_serving


@pytest.mark.slow
def test_commands_of_the_page_run(tmp_path):
  (tmp_path / "runs").mkdir()
  (tmp_path / "exported").mkdir()
  model_dir, _ = tiny_serving.make(
    "classification", "bert", tmp_path, num_layers=2, max_positions=128
  )
  os.rename(model_dir, tmp_path / "runs" / "model")
  (tmp_path / "texts.txt").write_text("the film\na story ||| it was good\n")
  with open(os.path.join(tiny.ROOT, "docs", "serving.md"), encoding="utf-8") as reader:
    page = reader.read()
  programs = [
    [sys.executable, "-c", code] for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
  ]
  for block in re.findall(r"```shell\n(.*?)```", page, re.DOTALL):
    for line in block.strip().split("\n"):
      _, script, *flags = line.split()
      programs.append([sys.executable, os.path.join(tiny.ROOT, script), *flags])
  assert len(programs) == 6
  environment = dict(os.environ, PYTHONPATH=tiny.ROOT, TF_CPP_MIN_LOG_LEVEL="3")
  for program in programs:
    if "--serve_text" in program:
      pytest.importorskip("tensorflow_text", reason="see requirements-text.txt")
    if any("--onnx_file" in flag for flag in program):
      pytest.importorskip("tf2onnx", reason="pip install -r requirements-onnx.txt")
    result = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, (program, result.stderr[-2000:])
  for name in ("exported/model/1", "exported/texts/1", "exported/model.onnx", "features.npz"):
    assert (tmp_path / name).exists(), name
