"""Conversion of an exported graph to float16, except what mixed precision keeps in float32 too."""
from typing import Any, Dict, List, Set, Tuple

import numpy as np
from torch import nn

from remax_mm.models.layers import MaskPredictor
from remax_mm.models.transformer_decoders.kmax_transformer_decoder import KMaXDecoderLayer

FLOAT32_MODULES = (MaskPredictor, KMaXDecoderLayer)
"""Their own operators stay in float32: the product of slots and pixels, argmax, and the sum over the pixels
of a slot. Their convolutions are modules of their own."""


def convert_to_float16(proto: Any, network: nn.Module) -> Any:
    """Convert a network to float16; inputs, outputs and the merging stay in float32.

    Args:
        proto: ``onnx.ModelProto`` whose nodes are named after the modules of ``network``.
        network: the exported module.
    """
    import onnx
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    graph, helper, types = proto.graph, onnx.helper, onnx.TensorProto
    is_float = {
        value.name
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.elem_type == types.FLOAT
    }
    weights = {weight.name: weight for weight in graph.initializer if weight.data_type == types.FLOAT}
    float32_nodes = names_of_float32_nodes(proto, network)
    producers = {output: node.name for node in graph.node for output in node.output}

    # Each node gets its inputs in its own type; a cast, or a copy of a weight, is made once for each type.
    nodes: List[Any] = []
    copies: Dict[Tuple[str, bool], str] = {}
    for node in graph.node:
        is_half = node.name not in float32_nodes
        for index, name in enumerate(node.input):
            keeps_float32 = node.op_type == 'Resize' and index in (1, 2)  # scales and region of interest
            half = is_half and not keeps_float32
            if name in weights:
                node.input[index] = copies.setdefault((name, half), f'{name}_float16' if half else name)
            elif name in is_float and half == (producers.get(name) in float32_nodes or name not in producers):
                copy = f'{name}_{"float16" if half else "float32"}'
                if copies.setdefault((name, half), copy) not in producers:
                    producers[copy] = ''
                    to = types.FLOAT16 if half else types.FLOAT
                    nodes.append(helper.make_node('Cast', [name], [copy], name=f'Cast_{copy}', to=to))
                node.input[index] = copy
        if is_half:
            use_float16_attributes(node, types)
        nodes.append(node)

    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used]
    kept += [half_weight(weights[name]) for name, half in copies if half and name in weights]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    return proto


def names_of_float32_nodes(proto: Any, network: nn.Module) -> Set[str]:
    """The merging, the own operators of :data:`FLOAT32_MODULES`, and nodes that give outputs of the graph."""
    scopes = {name for name, module in network.named_modules() if isinstance(module, FLOAT32_MODULES)}
    outputs = {output.name for output in proto.graph.output}
    depends_on_size, names = {'output_size'}, set()
    for node in proto.graph.node:  # in topological order
        is_merging = bool(depends_on_size & set(node.input))
        if is_merging:
            depends_on_size |= set(node.output)
        scope = node.name.rpartition('/')[0]
        if is_merging or not scope or scope in scopes or outputs & set(node.output):
            names.add(node.name)
    return names


def use_float16_attributes(node: Any, types: Any) -> None:
    """Let a node that names its type, or holds a constant, give float16."""
    for attribute in node.attribute:
        if node.op_type == 'Cast' and attribute.name == 'to' and attribute.i == types.FLOAT:
            attribute.i = types.FLOAT16
        elif attribute.name == 'value' and attribute.t.data_type == types.FLOAT:
            attribute.t.CopyFrom(half_weight(attribute.t))


def half_weight(weight: Any) -> Any:
    """A copy of a tensor in float16; values out of its range become its largest ones."""
    import onnx
    limit = np.finfo(np.float16).max
    values = onnx.numpy_helper.to_array(weight).clip(-limit, limit).astype(np.float16)
    return onnx.numpy_helper.from_array(values, f'{weight.name}_float16')
