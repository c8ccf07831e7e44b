"""Classifies one batch by every margin: `python -m tests.multi.head_worker FILE DATA MODEL`.

Writes loss, accuracy, state and gradients of each to FILE, an .npz. 21 classes do not divide among several devices.
Prints the collectives of loss and gradients at many classes.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from sface_jax.core import costs
from sface_jax.core import mesh as meshes
from sface_jax.recognition import head, methods

CLASSES, ROWS, SIZE = 21, 16, 8
SPECS = [*methods.METHODS, "elastic_cosface(plus=True)", "elastic_arcface(plus=True)"]
SPECS += ["combined_margin(m1=0.9, m2=0.4, m3=0.15)", "combined_margin(published=True, filter_threshold=0.3)"]


def main(file: str, data: str, model: str) -> None:
    mesh = meshes.make_mesh(int(data), int(model))
    rng = np.random.default_rng(0)
    weight = np.zeros((head.rows(CLASSES, mesh), SIZE), np.float32)
    weight[:CLASSES] = rng.normal(size=(CLASSES, SIZE))
    labels = rng.integers(0, CLASSES, ROWS).astype(np.int32)
    embeddings = weight[labels] + rng.normal(size=(ROWS, SIZE)).astype(np.float32)
    embeddings *= rng.uniform(5, 60, (ROWS, 1)).astype(np.float32)
    whole, spread, classes = meshes.replicated(mesh), meshes.batch_sharding(mesh), head.sharding(mesh)
    found = {}
    for spec in SPECS:
        method = methods.from_spec(spec)

        def loss(embeddings, weight, state, method=method):
            told = head.classify(
                method, embeddings, labels, weight, state, jax.random.key(3), num_classes=CLASSES, mesh=mesh
            )
            return told.loss, told

        run = jax.jit(
            jax.value_and_grad(loss, (0, 1), has_aux=True),
            in_shardings=(spread, classes, whole),
            out_shardings=((whole, head.Classified(whole, whole, whole, classes)), (whole, classes)),
        )
        state = {name: jnp.float32(value) for name, value in method.init.items()}
        (value, told), (by_embeddings, by_weight) = jax.device_get(run(embeddings, weight, state))
        found |= {f"{spec}/loss": value, f"{spec}/accuracy": told.accuracy, f"{spec}/embeddings": by_embeddings}
        found |= {f"{spec}/weight": by_weight[:CLASSES]}
        found |= {f"{spec}/state/{name}": value for name, value in told.state.items()}
        assert not by_weight[CLASSES:].any() and told.sampled.all()
    np.savez(file, **found)
    print(json.dumps({classes: collectives(mesh, classes) for classes in (1024, 65536)}))


def collectives(mesh, classes: int) -> dict:
    """Those of the compiled program, on this mesh."""
    spread, rows = meshes.batch_sharding(mesh), head.sharding(mesh)
    method = methods.from_spec("cosface")

    def loss(embeddings, weight, labels):
        key, options = jax.random.key(0), {"num_classes": classes, "mesh": mesh}
        return head.classify(method, embeddings, labels, weight, {}, key, **options).loss

    shapes = (ROWS, SIZE), (head.rows(classes, mesh), SIZE)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    run = jax.jit(jax.grad(loss, (0, 1)), in_shardings=(spread, rows, spread), out_shardings=(spread, rows)).lower(
        *arguments, jax.ShapeDtypeStruct((ROWS,), jnp.int32)
    )
    return costs.collectives(run.compile())


if __name__ == "__main__":
    main(*sys.argv[1:])
