"""Funnel-Transformer models that cannot be converted: tensors, configurations, variables."""

import numpy as np
import pytest
from tiny_conversion import draw, without, write_hf, write_tf
from tiny_funnel_conversion import (
  DISCRIMINATOR,
  HF_CONFIG,
  graph_variables,
  hf_shapes,
  tf_folder,
  tiny_config,
)

from conversion import commands
from errors import UserError

ONES = np.ones(8, np.float32)


@pytest.mark.parametrize(
  "config,change,message",
  [
    ({}, lambda t: t | {"lm_head.bias": ONES}, "unsupported tensor lm_head.bias; a head that"),
    ({}, lambda t: t | {"qa_outputs.bias": ONES}, "tensor qa_outputs.bias; a head that"),
    ({}, lambda t: t | {"classifier.bias": ONES}, "tensor classifier.bias; a head that"),
    (
      {"hidden_act": "gelu"},
      lambda t: t | draw(DISCRIMINATOR),
      "tensor discriminator_predictions.* only with hidden_act gelu_new",
    ),
    ({"num_decoder_layers": 0}, lambda t: t, "tensor decoder.layers.0.* few num_decoder_layers"),
    ({}, lambda t: without(t, "decoder.layers.0.ffn.linear_2.bias"), "no tensor decoder.layers.0"),
    (
      {},
      lambda t: without(t, "encoder.blocks.1.0.attention.r_kernel"),
      "no tensor encoder.blocks.1.0.attention.r_kernel",
    ),
    (
      {},
      lambda t: t | {"encoder.blocks.1.0.attention.q_head.weight": np.ones([8, 12])},
      r"q_head.weight has the shape \[8, 12\], .*config.json gives \[12, 8\]",
    ),
    ({"layer_norm_eps": 1e-5}, lambda t: t, "layer_norm_eps is 1e-05.* only 1e-08"),
    ({"hidden_act": "silu"}, lambda t: t, "hidden_act 'silu' is not supported"),
    ({"attention_type": "full"}, lambda t: t, "attention_type 'full'.* known are relative_shift"),
    ({"block_repeats": [1]}, lambda t: t, r"block_sizes is \[2, 1\], block_repeats \[1\]"),
    ({"block_sizes": 3}, lambda t: t, "block_sizes is 3, .* lists of the same length"),
    ({"pooling_type": "min"}, lambda t: t, "pooling_type 'min' is unknown"),
  ],
)
def test_unsupported_hugging_face_models_are_refused(tmp_path, config, change, message):
  folder = write_hf(tmp_path / "hf", change(draw(hf_shapes())), HF_CONFIG | config)
  with pytest.raises(UserError, match=message):
    commands.hf_to_tf(folder, str(tmp_path / "tf"))
  assert not (tmp_path / "tf").exists()


@pytest.mark.parametrize(
  "change,message",
  [
    ({"d_embed": 4}, "net_config.json: d_embed is 4; .* it is always d_model, 8"),
    ({"pooling_size": 3}, "pooling_size is 3; .* it is always 2"),
    ({"rel_attn_type": "null"}, "rel_attn_type is 'null'; .* always rel_shift or factorized"),
    ({"decoder_size": "1x2"}, "decoder_size is '1x2'; .* always without repetitions"),
    ({"init": "uniform"}, None),
  ],
)
def test_configurations_without_a_hugging_face_form_are_refused(tmp_path, change, message):
  folder = tf_folder(tmp_path / "tf", draw(graph_variables(tiny_config(**change))), **change)
  if message is None:  # an initializer does not affect the trained model
    commands.tf_to_hf(folder, str(tmp_path / "hf"))
  else:
    with pytest.raises(UserError, match=message):
      commands.tf_to_hf(folder, str(tmp_path / "hf"))
    assert not (tmp_path / "hf").exists()


def test_variables_without_a_hugging_face_form_are_refused(tmp_path):
  core = draw(graph_variables(tiny_config()))
  folder = tf_folder(tmp_path / "tf", core)
  convert = lambda name, arrays, **more: commands.tf_to_hf(
    more.pop("folder", folder),
    str(tmp_path / "hf"),
    **more,
    checkpoint=write_tf(tmp_path / name, arrays),
  )
  for i, name in enumerate(
    ["model/lm_proj/dense/bias", "model/race/logits/bias", "model/start_logits/dense/bias"]
  ):
    with pytest.raises(UserError, match=f"tensor {name}; .* --direction=core_only"):
      convert(f"a{i}", core | {name: ONES})
  with pytest.raises(UserError, match="unsupported tensor model/new/kernel; is .*net_config"):
    convert("b", core | {"model/new/kernel": ONES})
  summary = draw(
    {"model/sequnece_summary/summary/kernel": (8, 8), "model/sequnece_summary/summary/bias": (8,)}
  )
  logits = draw({"model/cola/logit/kernel": (8, 2), "model/cola/logit/bias": (2,)})
  with pytest.raises(UserError, match="no tensor model/sequnece_summary/summary/kernel"):
    convert("c", core | logits)
  with pytest.raises(UserError, match="unsupported tensor model/cola/logit/bias"):
    convert("d", core | summary | logits, cls_scope="mrpc")
  with pytest.raises(
    UserError,
    match=r"layer_0/rel_attn/q/kernel has the shape \[8, 12\], .* gives "
    r"\[8, 3, 4\]",
  ):
    convert("e", core | {"model/encoder/layer_0/rel_attn/q/kernel": np.ones([8, 12], np.float32)})
  relu = tf_folder(tmp_path / "relu", core, ff_activation="relu")
  with pytest.raises(UserError, match="tensor model/binary_.* gelu_new"):
    convert("f", core | {"model/binary_loss/bias": ONES[:1]}, folder=relu)
