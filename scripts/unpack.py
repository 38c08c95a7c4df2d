"""Unpacks a zip or tar archive into a new folder.

  python3 scripts/unpack.py ARCHIVE FOLDER

If all members are in one top folder, FOLDER takes its place. Members that would be written outside
the folder, and links, are refused. An interrupted call leaves FOLDER missing. It needs only
Python's standard library.
"""

import os
import shutil
import sys
import tarfile
import zipfile


def check(names: list[str], folder: str) -> None:
  """Raises ValueError if a member's path leaves the folder."""
  root = os.path.realpath(folder)
  for name in names:
    path = os.path.realpath(os.path.join(root, name.replace("\\", "/")))
    if os.path.commonpath([root, path]) != root:
      raise ValueError(f"member {name!r} would be written outside the folder")


def extract(archive: str, folder: str) -> None:
  """Unpacks all members after checking all names."""
  if zipfile.is_zipfile(archive):
    with zipfile.ZipFile(archive) as reader:
      check(reader.namelist(), folder)
      reader.extractall(folder)
    return
  with tarfile.open(archive) as reader:
    members = reader.getmembers()
    check([member.name for member in members], folder)
    for member in members:
      if not (member.isfile() or member.isdir()):
        raise ValueError(f"member {member.name!r} is a link or a device")
      member.mode = 0o755 if member.isdir() else 0o644
    reader.extractall(folder, members)


def unpack(archive: str, folder: str) -> None:
  """Unpacks `archive` to `folder`, which must not exist."""
  part = folder + ".part"
  shutil.rmtree(part, ignore_errors=True)
  os.makedirs(part)
  try:
    extract(archive, part)
    entries = [os.path.join(part, name) for name in os.listdir(part) if name != "__MACOSX"]
    is_nested = len(entries) == 1 and os.path.isdir(entries[0])
    os.rename(entries[0] if is_nested else part, folder)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def main() -> None:
  """Unpacks the archive of the command line."""
  if len(sys.argv) != 3:
    sys.exit(__doc__)
  try:
    unpack(*sys.argv[1:])
  except (OSError, ValueError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
    sys.exit(f"unpack.py: error: {sys.argv[1]}: {error}")


if __name__ == "__main__":
  main()
