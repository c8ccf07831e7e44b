"""Which identities are in two sets at once: training pictures in a benchmark, or authentic people in another set.

    python -m sface_jax.main --config=configs/overlap.py --workdir=DIR \\
        --config.sets="('train=faces.rec', 'lfw=lfw/pairs.txt:lfw/pictures')" --config.matcher=backbone.pth

Needs: two or more sets, each "[name=]path[:part]". The path is anything that configs/prepare.py reads, or a dataset
that it or configs/synthesize.py wrote, part then being a split ("DIR/authentic:heldout"); or a file of verification
pairs, part then being the folder of its pictures; or a `.bin` of pairs. And, to look at the faces, a recogniser,
trained on none of the sets where there is one, with pictures aligned as it wants them: a folder of ours or a file of
PyTorch's.
Expected: a line in the log for each two sets, such as "train and lfw: 311 identities by name, 305 of them confirmed by
pictures' embeddings, 4 more found by the recogniser (about 0.7, at most 2.3 expected by chance), no equal pictures";
DIR/overlap/overlap.json with all of them; overlap.html, which shows them side by side; and exclude.txt, the identities
of the first set to leave out, for `--config.exclude=DIR/overlap/exclude.txt` of configs/prepare.py.

The recogniser compares mean embeddings of identities. Its threshold is frozen on pairs of different identities within
the sets, 60 or more; what that threshold can tell is said in the log. Between sets, pictures of other cameras may be
less alike, or more. Those that are equal by name and not confirmed show what it misses, or wrong names: they count.
Names that only number people, such as "id7" or "n000123", count only where the recogniser or an equal picture bears
them out.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there are no variants."""
    if variant:
        raise ValueError(f'configs/overlap.py has no variant "{variant}"')
    config = ConfigDict()
    config.stage = "overlap"
    config.sets = ()  # see above; the first is the one to leave identities out of
    config.matcher = ""  # a name under DIR/recognition, or a path; "" compares names and equal pixels only
    config.fmr = 1e-5  # share of different identities that may be taken for one
    config.pictures = 10  # of each identity, the first ones; 0 looks at all
    config.shown = 40  # pairs of each kind on the page; overlap.json has all
    config.batch_size = 256  # over all devices
    config.flip = "sum"  # of a picture's embedding and its mirror image's; or "concatenate", or "none"
    return config
