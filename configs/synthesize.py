"""A labelled synthetic dataset, drawn from a trained generator.

    python -m sface_jax.main --config=configs/synthesize.py --workdir=DIR

Needs: DIR/gan, written by configs/gan.py, or another folder of that kind in `--config.generator`.
Expected: DIR/synthetic, a TFDS directory with 60 pictures of every class of the generator (SFace-60: 10,572 classes,
634,320 pictures), manifest.json, a dataset card (README.md) and preview.png. The card gets a section of figures from
configs/privacy.py: run that before the dataset is handed on.
The run may be cut off at any time; the same command goes on with the first shard that is missing.

    python -m sface_jax.main --config=configs/synthesize.py:quickstart

Needs nothing: prepares the embedded faces, trains a small generator and draws from it, in a few minutes on a CPU.

Which strategy? z is a random latent, w(z, c) what the generator makes of it and class c, w_c the mean of that over z.

  free             w(z, c). The paper's: take it to reproduce SFace, and when in doubt. psi below 1 pulls everything
                   towards one mean face: cleaner pictures, identities closer to each other.
  shared_seeds     the same with z from a pool of `shared_seeds` latents, as the released script of SFace draws them:
                   to reproduce the released datasets, and for nothing else.
  class_centre     w_c + psi (w(z, c) - w_c). Where the pictures of a class do not look like one person: psi of 0.5 to
                   0.9 brings them together and leaves the classes as far apart as they are. With psi 1 it is `free`.
  identity_driven  w_c + psi (w(z, k) - w_k), k another class drawn for each picture: the identity of the class, the
                   variation of the population. Where the pictures of a class are too much alike. Our reconstruction
                   of the idea of SFace2 (Boutros et al., TBIOM 2024), whose own method may differ.

With any of them a recogniser may reject pictures, which are drawn again, up to `attempts` times; of a picture that
never passes, the attempt that came nearest is kept. `min_class_similarity` keeps a class together,
`max_other_similarity` keeps classes apart, `max_authentic_similarity` rejects near copies of authentic pictures
of the class.

    --config.recognizer=DIR/recognition/authentic --config.min_class_similarity=0.3 --config.max_other_similarity=0.3

Good thresholds depend on the recogniser: begin with what it scores on authentic pairs, then read in manifest.json how
many pictures were drawn again and how many kept though none passed; DIR/synthetic/attempts tells which (the attempt
of each picture, from 0; -1 - attempt where none passed). What makes classes more distinct may make them easier to link
to the people they came from, `centres` "authentic" above all: let stage privacy see the result, with a matcher that is
not the recogniser used here.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns SFace-60, or with variant "quickstart" the quickstart up to this stage."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("synthesize")
    if variant:
        raise ValueError(f'configs/synthesize.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "synthesize"
    config.generator = "{workdir}/gan"
    config.checkpoint = "best"  # by the metric watched in training, else the latest; or "latest"
    config.output = "{workdir}/synthetic"
    config.classes = 0  # how many, from label 0 on; 0 takes all
    config.per_class = 60
    config.strategy = "free"  # or "shared_seeds", "class_centre", "identity_driven": see above
    config.shared_seeds = 1000  # latents in the pool of "shared_seeds"
    config.centre_samples = 512  # latents that a class's centre in w is taken from
    config.psi = 1.0  # truncation; 1 is none. Towards what, the strategy says
    config.noise = "random"  # "random" for each picture, "const" or "none"
    config.recognizer = ""  # what rejects pictures: a trained recogniser; "" rejects none
    config.min_class_similarity = 0.0  # least cosine with the centre of the class; 0 is off
    config.max_other_similarity = 1.0  # most with the nearest centre of another class; 1 is off
    config.max_authentic_similarity = 1.0  # most with the nearest authentic picture of the class; 1 is off
    config.attempts = 8  # most draws of a picture
    config.centres = "synthetic"  # mean directions of synthetic pictures of the class, or of "authentic" ones
    config.centre_pictures = 16  # synthetic pictures drawn for each of them, anew whenever the run starts
    config.authentic = "{workdir}/authentic"  # what the generator learned from, where authentic pictures are needed
    config.licence = ""  # under which the dataset is released, for its card and manifest; "" leaves it to be set
    config.seed = 0
    config.batch_size = 64  # per device
    config.shard_size = 8192  # pictures in a file, and lost at most when the run is cut off
    config.png_folders = False  # also DIR/synthetic/png/<class>/<index>.png
    return config
