"""Turns prose into the input format of create_pretraining_data.py.

  python scripts/split_sentences.py OUTPUT.txt INPUT.txt [INPUT.txt ...]

The output has one sentence per line and a blank line after each document. A file is a document; a
paragraph that begins with "CHAPTER" (in any case) begins a new one. Paragraphs may be wrapped over
several lines. Files compressed with gzip or bzip2 are unpacked.
"""

import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from errors import UserError
from tasks.readers import read_text
from utils import paths

# End of a sentence: . ! or ?, optional quotes or brackets, whitespace, then no lower-case letter. A
# title or an initial ("Mr. Darcy", "J. Smith") does not end a sentence.
_END = re.compile(r"""(?<=[.!?])(["'”’)\]]*)\s+(?=["'“‘(\[]*[^\Wa-z_])""")
_NO_END = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|St|Hon|Rev|Capt|Col|Gen|No|vs)|\b[A-Z])\.$")
_CHAPTER = re.compile(r"\s*chapter\b", re.IGNORECASE)


def split_sentences(paragraph: str) -> list[str]:
  """Sentences of a paragraph: 'Mr. A left. "So?" B asked.' -> ['Mr. A left.', '"So?" B asked.']."""
  sentences, start = [], 0
  text = " ".join(paragraph.split())
  for match in _END.finditer(text):
    sentence = text[start : match.end(1)]
    if not _NO_END.search(sentence):
      sentences.append(sentence)
      start = match.end()
  return [sentence for sentence in (*sentences, text[start:]) if sentence]


def documents(path: str) -> list[list[str]]:
  """Sentences of each document of a file."""
  text = re.sub(r"\r\n?|<br />", "\n", read_text(path))  # the tags are IMDB's
  paragraphs = re.split(r"\n\s*\n", text)
  found = [[]]
  for paragraph in paragraphs:
    if _CHAPTER.match(paragraph):
      found.append([])
    found[-1] += split_sentences(paragraph)
  return [document for document in found if document]


def main() -> None:
  """Reads the input files and writes the output file."""
  if len(sys.argv) < 3:
    sys.exit(__doc__)
  output, *inputs = sys.argv[1:]
  temporary = output + ".tmp"
  try:
    paths.check_outputs(inputs, [output, temporary])
    with open(temporary, "w", encoding="utf-8") as writer:
      for path in inputs:
        for document in documents(path):
          writer.write("\n".join(document) + "\n\n")
  except UserError as error:
    sys.exit(f"split_sentences.py: error: {error}")
  os.replace(temporary, output)


if __name__ == "__main__":
  main()
