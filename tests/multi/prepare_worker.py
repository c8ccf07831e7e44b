"""Prepares a dataset as one of several processes, in blocks of four pictures: `prepare_worker SOURCE WORKDIR`."""

import json
import sys

import jax
from etils import epath

from configs import prepare as configs
from sface_jax.core import cluster
from sface_jax.data import blocks, prepare


def main() -> None:
    cluster.join()
    blocks.SIZE = 4
    config = configs.get_config()
    config.update({"source": sys.argv[1], "image_size": 8, "heldout_identities": 0.3, "pairs_per_fold": 2})
    config.update({"matcher_identities": 0.0, "workers": 1})
    made = []
    make = blocks.Blocks.make
    blocks.Blocks.make = lambda self, number: made.append(number) or make(self, number)
    counts = prepare.run(config, epath.Path(sys.argv[2]))
    print(json.dumps({"process": jax.process_index(), "made": made, "counts": counts}))


if __name__ == "__main__":
    main()
