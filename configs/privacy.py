"""How much of the authentic identities a synthetic dataset gives away.

    python -m sface_jax.main --config=configs/privacy.py --config.authentic=B --config.synthetic=A --config.matchers=NET

Needs: pictures of any two kinds - folders <identity>/<picture>, a `.rec` of InsightFace's, `.tar` files (WebDataset),
a list or Parquet file, a dataset of this project - and a matcher that was trained on other people (never the
teacher). Synthetic identities are named after the authentic ones they were made from; else a table tells
(--config.identity_map), and without either only what needs no labels is asked. Membership needs people whom the
generator never saw: --config.heldout=C.

Where a matcher is not at hand but its embeddings are, `.npy` [n, d] with labels beside it in `.labels.npy`, or `.npz`
with "embeddings" and "labels", in place of each set; "{matcher}" in the path stands for a matcher's name:

    --config.authentic=B/{matcher}.npz --config.synthetic=A/{matcher}.npz --config.matchers="('first', 'second')"

What a pipeline of this project has made is audited without naming anything but its folder, held-out people included:

    python -m sface_jax.main --config=configs/privacy.py --workdir=DIR

Expected: DIR/privacy with index.html (the verdict, what it stands on, what to do), audit.json, and a list of pictures
to leave out. The card (README.md) of a synthetic dataset of this project gets the figures, in place of those of an
earlier audit: audit a copy where it must stay as it is. A run that was interrupted goes on: embeddings are kept in
DIR/privacy/embeddings. For the data of the paper, read off its figures: EER .076 authentic, .292 between authentic and
synthetic pictures of a label, D_sys .38, and a match rate of 11.6 % at FMR 1e-3.

    python -m sface_jax.main --config=configs/privacy.py:quickstart

Needs nothing: everything up to this stage on the embedded faces, in a few minutes on a CPU.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the audit, or with variant "quickstart" the quickstart up to this stage."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("privacy")
    if variant:
        raise ValueError(f'configs/privacy.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "privacy"
    # The sets: anything that holds pictures, or embeddings; "path:split" takes another split of a dataset than train.
    config.authentic = "{workdir}/authentic"  # whom the generator learned: its training pictures
    config.heldout = ""  # people the generator never saw; "" takes split heldout where authentic is a dataset
    config.unseen = ""  # pictures of the people in authentic that did not train the generator, where there are some
    config.synthetic = "{workdir}/synthetic"
    config.identity_map = ""  # a table: synthetic identity, tab, the authentic identity that it was made from
    # Whether names link synthetic identities to authentic ones. "auto": they do, or identity_map does; "own": they do
    # not, but tell the synthetic identities apart; "none": those of synthetic pictures mean nothing at all. The people
    # of the authentic sets are told apart by name in any case.
    config.labels = "auto"
    config.max_pictures = 50_000  # of each set, evenly over the identities; 0 takes all
    config.max_unreadable = 0.01  # share of a set's pictures that may be unreadable: they are counted and left out
    # The tools.
    # Under DIR/recognition, or paths. The worst verdict of all is the audit's; the figures shown are the first one's.
    config.matchers = ("matcher",)
    config.teacher = "authentic"  # what taught the networks under audit: may not be a matcher
    config.generator = ""  # a work directory with gan/checkpoints: what its discriminator gives away is tried too
    config.released = ()  # recognisers that will be handed out, under DIR/recognition or paths: what they give away
    config.batch_size = 256  # over all devices
    config.flip = "sum"  # of a picture's embedding and its mirror image's; or "concatenate", or "none"
    # The questions.
    config.rates = (1e-2, 1e-3, 1e-4)  # false positive rates at which leaking pictures are sought
    config.planted = 100  # leaks of each kind planted as a control; 0 plants none
    config.seed = 0
    # What comes of it.
    config.exclude_rate = 1e-3  # one of rates: what is flagged there is listed to be left out; 0 lists nothing
    config.filtered = ""  # where to write the synthetic dataset without what is listed; "" writes none
    config.show_pairs = False  # whether the page may show flagged synthetic pictures beside blurred authentic ones
    config.output = "{workdir}/privacy"
    return config
