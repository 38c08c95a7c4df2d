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


def layer_flops(queries: int, keys: int, width: int, heads_width: int, inner: int) -> int:
  """FLOPs of one transformer layer for one example, without relative position terms."""
  projections = 2 * width * heads_width * (2 * queries + 2 * keys)  # q and o; k and v
  attention = 2 * 2 * queries * keys * heads_width  # scores, context
  feed_forward = 2 * 2 * queries * width * inner
  return projections + attention + feed_forward


def relative_flops(queries: int, keys: int, heads_width: int) -> int:
  """FLOPs of one layer's position scores for all distances (rel_shift) and segment scores."""
  distances = 2 * keys
  return 2 * queries * distances * heads_width + 2 * 2 * queries * heads_width


def pooled_length(config: modeling.ModelConfig, length: int) -> int:
  """Length after pooling: 128 -> 64; 17 -> 9 if [cls] is kept and the sequence is truncated."""
  kept = int(config.separate_cls)
  if kept and config.truncate_seq and config.pooling_size > 1:
    length -= 1
  return kept - (kept - length) // config.pooling_size


def encoder_flops(config: modeling.Config, length: int, relative: bool = False) -> int:
  """Forward FLOPs of an encoder for one example of `length` tokens."""
  if config.family == "bert":
    return config.num_hidden_layers * layer_flops(
      length, length, config.hidden_size, config.hidden_size, config.intermediate_size
    )
  total, queries = 0, length
  heads_width = config.n_head * config.d_head
  for block, (count, repeats) in enumerate(config.blocks):
    if block:
      queries = pooled_length(config, queries)
    for layer in range(count * repeats):
      if not block or layer or not config.pool_q_only:  # else keys are the sequence before pooling
        keys = queries
      total += layer_flops(queries, keys, config.d_model, heads_width, config.d_inner)
      if relative and config.rel_attn_type != "null":
        total += relative_flops(queries, keys, heads_width)
  if config.d_embed != config.d_model:
    total += 2 * length * config.d_embed * config.d_model
  return total


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
