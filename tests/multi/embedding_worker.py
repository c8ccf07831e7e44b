"""Embeds numbered pictures on a mesh whose devices are not in the order of the processes: `... embedding_worker`."""

import json

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from sface_jax.core import cluster, costs
from sface_jax.core import mesh as meshes
from sface_jax.recognition.features import _compiled, features
from sface_jax.recognition.mobilefacenet import MobileFaceNet
from sface_jax.recognition.network import Network, Preprocessing


class Mean(nn.Module):
    """The mean of a picture as its embedding."""

    @nn.compact
    def __call__(self, x, train=False):
        return x.mean((1, 2, 3))[:, None]


def main() -> None:
    cluster.join()
    # as a TPU slice has them, whose order follows its wires: neighbours of one process are apart
    devices = np.array(jax.devices())
    devices = devices.reshape(-1, min(2, len(devices))).T.reshape(-1, 1)
    mesh = Mesh(devices, meshes.ALL, axis_types=(AxisType.Auto,) * 2)
    numbered = np.broadcast_to(np.arange(11, dtype=np.uint8)[:, None, None, None], (11, 2, 2, 3))
    network = Network(Mean(), {}, Preprocessing(2, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)))
    rows = features(network, np.ascontiguousarray(numbered), batch_size=8, mesh=mesh)
    told = {"rows": rows[:, 0, 0].round().astype(int).tolist(), "devices": jax.device_count()}

    module = MobileFaceNet(blocks=(1, 0, 0, 0), scale=1, embedding_size=4)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(leaf.dtype), shapes)
    network = Network(module, variables, Preprocessing(16))
    pictures = rng.integers(0, 256, (11, 16, 16, 3), dtype=np.uint8)
    embeddings = features(network, pictures, batch_size=8, whole_batches=True, mesh=mesh)
    told["embeddings"] = embeddings.tolist()
    program = _compiled(module, network.preprocessing, True, mesh)
    compiled = program.lower(shapes, jax.ShapeDtypeStruct((8, 16, 16, 3), np.uint8)).compile()
    told["collectives"] = sorted(costs.collectives(compiled))
    print(json.dumps(told))


if __name__ == "__main__":
    main()
