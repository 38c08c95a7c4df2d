"""Version, bounds of requirements, and calls that would run code from files."""

import ast
import re

import pytest
import test_house
from packaging import requirements, version

# Calls that run code of a file or a text, and the keyword that makes each safe.
UNSAFE = {
  **dict.fromkeys(("eval", "exec", "compile", "os.system", "os.popen"), None),
  **dict.fromkeys(("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads"), None),
  **dict.fromkeys(("joblib.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load"), None),
  **dict.fromkeys(("shutil.unpack_archive", "tempfile.mktemp"), None),
  "torch.load": "weights_only=True",
  "extractall": "filter='data'",
}
# Files whose calls were read: path -> reason.
REVIEWED = {"scripts/unpack.py": "checks every member before it unpacks"}
UNSAFE_KEYWORDS = ("allow_pickle=True", "shell=True")


def unsafe_calls(source):
  """["LINE: call", ...]."""
  found = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Call):
      name = ast.unparse(node.func)
      name = name.rsplit(".", 1)[-1] if name.endswith(".extractall") else name
      keywords = [ast.unparse(keyword) for keyword in node.keywords]
      if (name in UNSAFE and UNSAFE[name] not in keywords) or set(keywords) & set(UNSAFE_KEYWORDS):
        found.append(f"{node.lineno}: {ast.unparse(node)[:80]}")
  return found


def test_no_call_runs_code_from_files():
  found = {path: unsafe_calls(test_house.read(path)) for path in test_house.code_files()}
  assert {path: calls for path, calls in found.items() if calls and path not in REVIEWED} == {}


@pytest.mark.parametrize(
  "source",
  [
    "eval(x)",
    "np.load(f, allow_pickle=True)",
    "a.extractall(f)",
    "subprocess.run(x, shell=True)",
    "pickle.load(f)",
  ],
)
def test_unsafe_calls_are_found(source):
  assert unsafe_calls(source) and not unsafe_calls("a.extractall(f, filter='data')")


def test_the_version_is_in_one_file():
  """pyproject.toml reads it; the newest heading of the changelog is this version or Unreleased."""
  found = test_house.read("VERSION").strip()
  assert re.fullmatch(r"\d+\.\d+\.\d+", found)
  project = test_house.read("pyproject.toml")
  assert not re.search(r"^version *=.*\d\.", project, re.MULTILINE)
  assert 'version = { file = "VERSION" }' in project
  (heading, *_) = re.findall(r"^## (.*)$", test_house.read("CHANGELOG.md"), re.MULTILINE)
  assert heading.split()[0] in ("Unreleased", found)


def test_requirements_have_bounds_and_reasons():
  for path in test_house.tracked("requirements*.txt"):
    for line in test_house.read(path).splitlines():
      if not line or line.startswith("#"):
        continue
      text, _, reason = line.partition("#")
      operators = {bound.operator for bound in requirements.Requirement(text.strip()).specifier}
      is_pinned = operators == {"=="}
      assert is_pinned or {">=", "<"} <= operators, f"{path}: {line}"
      assert reason.strip() or path == "requirements-no-deps.txt", f"{path}: {line}: no reason"


def test_installed_packages_are_within_the_bounds():
  from importlib import metadata

  for path in test_house.tracked("requirements*.txt"):
    for line in test_house.read(path).splitlines():
      text = line.partition("#")[0].strip()
      if not text:
        continue
      wanted = requirements.Requirement(text)
      try:
        installed = metadata.version(wanted.name)
      except metadata.PackageNotFoundError:
        continue
      if path != "requirements-no-deps.txt":  # those of TensorFlow 2.16 and newer
        assert version.Version(installed) in wanted.specifier, f"{path}: {line}: {installed}"
