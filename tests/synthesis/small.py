"""A small run of the stage, without a trained generator."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import synthesize
from sface_jax.core.embedder import Embedder
from sface_jax.gan.generator import Generator


def load(folder: str, checkpoint: str = "best"):
    """Stands for `gan.network.load`: a generator that was never trained, yet uses class, latent and noise."""
    del folder, checkpoint
    generator = Generator(image_size=8, num_classes=5, z_dim=8, w_dim=8, channel_base=64, channel_max=8)
    shapes = jax.eval_shape(generator.init, jax.random.key(0), jnp.zeros((1, 8)), jnp.zeros(1, jnp.int32))
    random = np.random.default_rng(0)

    def fill(path, leaf):
        # The mapping network divides its weights by 100 where it uses them; fainter pictures are hardly ever clipped.
        scale = {"fc": 100.0, "torgb": 0.3}
        factor = next((factor for name, factor in scale.items() if name in jax.tree_util.keystr(path)), 1.0)
        return (factor * random.normal(size=leaf.shape)).astype(np.float32)

    return generator, jax.tree_util.tree_map_with_path(fill, shapes), {"step": 7}


def config(output: str, **changes) -> ConfigDict:
    """The stage's config for 5 classes of 3 pictures in shards of 4."""
    small = synthesize.get_config()
    small.update({"output": str(output), "per_class": 3, "batch_size": 2, "shard_size": 4, **changes})
    return small


def open_embedder(path: str) -> Embedder:
    """Stands for what `main` opens a recogniser with: a random projection of the pixels."""
    weights = np.random.default_rng(1).normal(size=(8 * 8 * 3, 16)).astype(np.float32)

    def apply(variables, images):
        features = images.reshape(len(images), -1) @ variables["weights"]
        return features / jnp.linalg.norm(features, axis=1, keepdims=True)

    return Embedder(name=path, variables={"weights": weights}, apply=apply)


def rejecting(output: str, **changes) -> ConfigDict:
    """The same with conditions that about half of the pictures meet, and some classes hardly ever."""
    conditions = {"recognizer": "r", "min_class_similarity": 0.88, "max_other_similarity": 0.95}
    return config(output, **{**conditions, "attempts": 3, "centre_pictures": 4, **changes})
