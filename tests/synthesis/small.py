"""A small run of the stage, without a trained generator."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from configs import synthesize
from sface_jax.gan.generator import Generator


def load(folder: str):
    """Stands for `gan.network.load`: a generator that was never trained, yet uses class, latent and noise."""
    del folder
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
