"""Counts the forward FLOPs of an encoder, and prints the Funnel paper's comparison.

  python benchmarks/flops.py                                  the five released models
  python benchmarks/flops.py CONFIG.json [CONFIG.json ...]    any configurations, per example
  python benchmarks/flops.py --length=512 --relative          longer; with the relative position
                                                              and segment terms

A FLOP is a multiplication or an addition; a matrix product [m, k] x [k, n] has 2mkn. The count
includes the matrix products of the encoder for one example, without embeddings, decoder and heads.
The paper (Dai et al. 2020, section 3) leaves out the additional terms of relative attention;
--relative includes them.
"""

import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import modeling
from models.flops import encoder_flops

# Released model -> (standard transformer that it is compared with, the paper's ratio).
PAPER = {
  "B4-4-4H768": ("L12H768", 0.58),
  "B6-3x2-3x2H768": ("L12H768", 0.88),
  "B6-6-6H768": ("L12H768", 0.88),
  "B8-8-8H1024": ("L24H1024", 0.58),
  "B10-10-10H1024": ("L24H1024", 0.73),
}
STANDARD = {
  "L12H768": modeling.BertConfig(30522, 768, 12, 12, 3072),
  "L24H1024": modeling.BertConfig(30522, 1024, 24, 16, 4096),
}


def main() -> None:
  """Prints the FLOPs of the given configurations, or the paper's comparison."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("configs", nargs="*", help="configuration files")
  parser.add_argument("--length", type=int, default=128, help="tokens of the example")
  parser.add_argument(
    "--relative", action="store_true", help="count the relative position and segment terms too"
  )
  arguments = parser.parse_args()
  flops = lambda config: encoder_flops(config, arguments.length, arguments.relative)
  for path in arguments.configs:
    print(
      f"{path}: {flops(modeling.load_config(path)) / 1e9:.3f} GFLOPs at length {arguments.length}"
    )
  if arguments.configs:
    return
  print(f"length {arguments.length}\nmodel            GFLOPs  of        ratio  paper")
  for name, (standard, paper) in PAPER.items():
    own, other = flops(modeling.released_funnel(name)), flops(STANDARD[standard])
    print(f"{name:15} {own / 1e9:7.2f}  {standard:8}  {own / other:5.3f}   {paper:.2f}")


if __name__ == "__main__":
  main()
