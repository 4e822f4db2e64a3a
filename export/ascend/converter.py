"""What the vendor's converter is to be told of a graph: the file of its option --configFile.

  converter_lite --fmk=MINDIR --optimize=ascend_oriented --saveType=MINDIR --configFile=unet_b2_64x64.ascend.cfg \\
      --modelFile=unet_b2_64x64.ascend.mindir --outputFile=unet_b2_64x64

Sections and keys are those of MindSpore Lite 2.7: mindspore-lite/tools/converter/config_parser/config_file_parser.cc
(SetParamByConfigfile), and "Ascend Conversion Tool Description" in its documentation (converter_tool_ascend.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...runner.bundle.manifest import TensorInfo

# "enforce_origin" is ACL's must_keep_origin_dtype (acl_utils.h): the graph itself says which layers are float16.
PRECISION = "enforce_origin"
# Replaces the operator GroupNorm, which CANN's graphs lack, by GroupNormSilu without its SiLU
# (mindspore-lite/tools/optimizer/fusion/groupnormsilu_fusion.cc).
CUSTOM_OPERATORS = "GroupNormSilu"


def configuration(inputs: Sequence[TensorInfo]) -> str:
    """The text of the file. inputs: of the graph."""
    shapes = ";".join(f"{tensor.name}:[{','.join(map(str, tensor.shape))}]" for tensor in inputs)
    pictures = any(len(tensor.shape) == 4 for tensor in inputs)
    rows = {"input_format": "NCHW" if pictures else "ND", "input_shape": shapes, "precision_mode": PRECISION,
            "plugin_custom_ops": CUSTOM_OPERATORS}  # fmt: skip
    return "[ascend_context]\n" + "".join(f"{key}={value}\n" for key, value in rows.items())
