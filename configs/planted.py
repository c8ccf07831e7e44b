"""What the privacy audit finds of leaks, planted in a set that has none.

    python -m sface_jax.main --config=configs/planted.py --workdir=DIR --config.matcher=NETWORK \\
        --config.authentic="('A',)" --config.synthetic="('B',)"

Needs: authentic pictures of people (4 or more pictures each); a set of pictures of other people, in place of what a
generator made that never saw them; and a recogniser. Both sets are anything that configs/prepare.py reads, or splits of
datasets ("DIR/authentic:heldout"), several as one. Nobody may be in both: configs/overlap.py finds who is, and its
exclude.txt leaves them out (--config.exclude).

Expected: DIR/planted/planted.md and planted.json. For every seed the authentic people are split into members and
held-out ones, and a part of each one's pictures is set aside; then 1 %, 0.1 % and 0.01 % of the set (at least one
picture) are replaced by members' pictures, as they are, or cropped, lit and encoded anew, or by others of those people
that were set aside; and the table says what the screening finds of each kind at which false positive rate, and in how
many of the sets it notices that something is wrong - with leaks, and without any, where 5 % would be chance.
A minute for 10,000 pictures on two cores.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there are no variants."""
    if variant:
        raise ValueError(f'configs/planted.py has no variant "{variant}"')
    config = ConfigDict()
    config.stage = "planted"
    config.authentic = ("{workdir}/authentic:train", "{workdir}/authentic:heldout")
    config.synthetic = ("{workdir}/fresh",)  # other people's pictures
    config.exclude = ""  # a file with an identity of the synthetic set in each line: these are left out
    config.matcher = "matcher"  # a name under DIR/recognition, or a path
    config.heldout = 0.5  # share of the people whom members are told from
    config.unseen = 0.25  # share of each one's pictures that is set aside
    config.edited = 2000  # pictures that are edited and embedded, of all the people
    config.planted = 500  # leaks of each kind by which the rates are measured, in each split
    config.shares = (1e-2, 1e-3, 1e-4)  # of the set that leaks replace
    config.rates = (1e-2, 1e-3, 1e-4)  # false positive rates
    config.seeds = 20  # splits
    config.seed = 0  # of the first one
    config.batch_size = 256  # over all devices
    config.flip = "sum"  # of a picture's embedding and its mirror image's; or "concatenate", or "none"
    config.output = "{workdir}/planted"
    return config
