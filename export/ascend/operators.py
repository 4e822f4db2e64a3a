"""The operators that the converter of MindSpore Lite 2.7 takes for Ascend, each with where that was read: data only.

Nothing of it was run. For a MindIR file the converter rewrites a few operators itself (AclPassImpl::MapperForOrgMindIR in
mindspore-lite/tools/converter/adapter/acl/src/acl_pass_impl.cc: MatMul, BatchMatMul, Transpose, AvgPool and some that our
graphs have not), replaces others by passes that the configuration asks for (converter.py), and hands all that is left to
CANN's graph engine by the adapter that MindSpore registers under the operator's name (REG_ADPT_DESC).
"""

from collections.abc import Mapping

LITE = "mindspore-ai/mindspore-lite 2.7.0, mindspore-lite/tools/"
MAPPER = LITE + "converter/adapter/acl/mapper/"
GRAPH_ENGINE = "mindspore-ai/mindspore, mindspore/ccsrc/transform/graph_ir/op_declare/"
ELEMENTWISE = GRAPH_ENGINE + "elewise_calculation_ops_declare.cc"
SELECTION = GRAPH_ENGINE + "selection_ops_declare.cc"

KNOWN: Mapping[str, str] = {
    "Add": ELEMENTWISE,
    "AvgPool": MAPPER + "avgpool_fusion_mapper.cc",
    "BatchMatMul": MAPPER + "matmul_fusion_mapper.cc",
    "BiasAdd": ELEMENTWISE,
    "BroadcastTo": GRAPH_ENGINE + "pad_ops_declare.cc",
    "Cast": ELEMENTWISE,
    "Concat": GRAPH_ENGINE + "split_combination_ops_declare.cc (ConcatD)",
    "Conv2D": GRAPH_ENGINE + "nn_calculation_ops_declare.cc",
    "Div": ELEMENTWISE,
    "Erf": GRAPH_ENGINE + "math_ops_declare.cc",
    "Gather": SELECTION + " (GatherV2)",
    "GroupNorm": LITE + "optimizer/fusion/groupnormsilu_fusion.cc, where plugin_custom_ops has GroupNormSilu",
    "LayerNorm": GRAPH_ENGINE + "nn_norm_ops_declare.cc",
    "MatMul": MAPPER + "matmul_fusion_mapper.cc",
    "Mul": ELEMENTWISE,
    "PromptFlashAttention": GRAPH_ENGINE + "; made by " + LITE + "optimizer/fusion/flash_attention_fusion.cc, too",
    "ReduceMean": GRAPH_ENGINE + "reduce_ops_declare.cc",
    "Reshape": GRAPH_ENGINE + "array_ops_declare.cc",
    "ResizeNearestNeighbor": GRAPH_ENGINE + "image_ops_declare.cc (ResizeNearestNeighborV2)",
    # The mapper makes a Swish of it. MapperForOrgMindIR does not name it: what serves a MindIR file is the graph engine's
    # Swish, by its adapter in libmindspore_ascend_res_manager.so of MindSpore 2.10, which names both.
    "SiLU": MAPPER + "silu_mapper.cc (Swish)",
    "Sigmoid": GRAPH_ENGINE + "nonlinear_fuc_ops_declare.cc",
    "Slice": SELECTION,
    "Softmax": GRAPH_ENGINE + "nn_norm_ops_declare.cc (SoftmaxV2)",
    "Sqrt": ELEMENTWISE,
    "Sub": ELEMENTWISE,
    "Transpose": MAPPER + "transpose_mapper.cc",
}
