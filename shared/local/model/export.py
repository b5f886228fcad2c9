"""Turn the all-MiniLM-L6-v2 checkpoint into one ONNX graph: token ids in, unit vector out.

The graph holds the whole encoder (embeddings, six BERT layers, mean pooling, L2 norm). It takes
no attention mask: Lockstep runs one text at a time, unpadded, so that a text's vector never
depends on the texts that happen to be embedded beside it (activations are quantised per tensor,
and a tensor spans its batch).

Two precisions share every line but `linear` and `embed`:

* `fp32` is the reference that the tests' fixtures are measured against;
* `int8` is what ships: dynamic quantisation with standard operators only.

Bytes are deterministic for a given checkpoint; `build` pins their SHA-256.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

OPSET = 20  # The first with Gelu; LayerNormalization came with 17.
IR_VERSION = 9  # The one that belongs to opset 20.

# Seven bits for the weights of matrix products, not eight: x86 without VNNI (AVX2, still found
# under AWS Lambda) adds pairs of u8 x i8 products in 16 bits and saturates in silence above
# 32,767. 2 * 255 * 63 = 32,130 fits, so that every CPU gives the same integers.
# https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html (reduce_range)
WEIGHT_MAX = 63
EMBEDDING_MAX = 127  # Only looked up, never multiplied as integers.


def quantise(values: np.ndarray, axis: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 with one scale for each slice that remains once `axis` is reduced."""
    scale = np.abs(values).max(axis=axis, keepdims=True) / np.float32(largest)
    scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


class Graph:
    """Collects nodes and constants, and names them in the order of their making."""

    def __init__(self, int8: bool):
        self.int8 = int8
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def integers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}.{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=name, **attributes))
        return name if outputs == 1 else names

    def embed(self, name: str, table: np.ndarray, ids: str) -> str:
        """Rows of `table` (vocabulary x width) at `ids`."""
        if not self.int8:
            return self.op("Gather", self.constant(name, table), ids, axis=0)
        rows, scale = quantise(table, axis=1, largest=EMBEDDING_MAX)
        picked = self.op("Gather", self.constant(name, rows), ids, axis=0)
        scales = self.op("Gather", self.constant(f"{name}.scale", scale), ids, axis=0)
        return self.op("Mul", self.op("Cast", picked, to=TensorProto.FLOAT), scales)

    def linear(self, name: str, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """`x @ weight + bias`, with `weight` as inputs x outputs."""
        if self.int8:
            # This very shape (DynamicQuantizeLinear, MatMulInteger with both zero points, Cast,
            # Mul) is what rten fuses into one kernel.
            quantised, scale = quantise(weight, axis=0, largest=WEIGHT_MAX)
            x, x_scale, x_zero = self.op("DynamicQuantizeLinear", x, outputs=3)
            product = self.op(
                "MatMulInteger",
                x,
                self.constant(f"{name}.weight", quantised),
                x_zero,
                self.constant(f"{name}.zero", np.zeros(weight.shape[1], np.int8)),
            )
            scales = self.op("Mul", x_scale, self.constant(f"{name}.scale", scale[0]))
            product = self.op("Mul", self.op("Cast", product, to=TensorProto.FLOAT), scales)
        else:
            product = self.op("MatMul", x, self.constant(f"{name}.weight", weight))
        return self.op("Add", product, self.constant(f"{name}.bias", bias))


def build(config: dict, weights: dict[str, np.ndarray], int8: bool) -> onnx.ModelProto:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width = hidden // heads
    graph = Graph(int8)

    def norm(x: str, name: str) -> str:
        return graph.op(
            "LayerNormalization",
            x,
            graph.constant(f"{name}.weight", weights[f"{name}.weight"]),
            graph.constant(f"{name}.bias", weights[f"{name}.bias"]),
            axis=-1,
            epsilon=config["layer_norm_eps"],
        )

    def dense(name: str, x: str) -> str:
        return graph.linear(name, x, weights[f"{name}.weight"].T, weights[f"{name}.bias"])

    # Embeddings. Every text is segment 0, so that row folds into the table of positions.
    positions = (
        weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    tokens = graph.embed(
        "embeddings.word", weights["embeddings.word_embeddings.weight"], "input_ids"
    )
    length = graph.op("Shape", "input_ids", start=1, end=2)
    here = graph.op(
        "Slice",
        graph.constant("embeddings.position", positions),
        graph.integers("first", 0),
        length,
        graph.integers("rows", 0),
    )
    x = norm(graph.op("Add", tokens, here), "embeddings.LayerNorm")

    split_heads = graph.integers("split_heads", 0, 0, heads, width)
    join_heads = graph.integers("join_heads", 0, 0, hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        # One product makes queries, keys and values; the 1/sqrt(width) of scaled dot-product
        # attention is folded into the queries.
        shrink = np.repeat(np.array([width**-0.5, 1, 1], np.float32), hidden)
        weight = np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1) * shrink
        bias = np.concatenate([weights[f"{part}.bias"] for part in parts]) * shrink
        joint = graph.linear(f"{layer}.attention.self", x, weight, bias)
        query, key, value = (
            graph.op("Reshape", part, split_heads)
            for part in graph.op("Split", joint, outputs=3, axis=-1, num_outputs=3)
        )
        scores = graph.op(
            "MatMul",
            graph.op("Transpose", query, perm=[0, 2, 1, 3]),
            graph.op("Transpose", key, perm=[0, 2, 3, 1]),
        )
        seen = graph.op(
            "MatMul",
            graph.op("Softmax", scores, axis=-1),
            graph.op("Transpose", value, perm=[0, 2, 1, 3]),
        )
        seen = graph.op("Reshape", graph.op("Transpose", seen, perm=[0, 2, 1, 3]), join_heads)
        x = norm(
            graph.op("Add", dense(f"{layer}.attention.output.dense", seen), x),
            f"{layer}.attention.output.LayerNorm",
        )
        inner = graph.op("Gelu", dense(f"{layer}.intermediate.dense", x))
        x = norm(
            graph.op("Add", dense(f"{layer}.output.dense", inner), x),
            f"{layer}.output.LayerNorm",
        )

    mean = graph.op("ReduceMean", x, graph.integers("tokens", 1), keepdims=0)
    length = graph.op("ReduceL2", mean, graph.integers("components", -1), keepdims=1)
    graph.nodes.append(helper.make_node("Div", [mean, length], ["vector"], name="unit_length"))

    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
            [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", hidden])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="lockstep",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="folder with model.safetensors, config.json")
    parser.add_argument("output", type=Path, help="where the ONNX file goes")
    parser.add_argument("--precision", choices=["int8", "fp32"], default="int8")
    arguments = parser.parse_args()

    config = json.loads((arguments.checkpoint / "config.json").read_text())
    weights = load_file(arguments.checkpoint / "model.safetensors")
    model = build(config, weights, int8=arguments.precision == "int8")
    onnx.checker.check_model(model)
    arguments.output.write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
