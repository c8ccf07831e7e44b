"""Verification accuracy of recognisers on authentic benchmarks.

    python -m sface_jax.main --config=configs/verify.py --workdir=DIR

Needs: the networks in DIR/recognition, and DIR/authentic with held-out identities. Other benchmarks: a list in LFW's
format and its folder of pictures (aligned as the training pictures are); a list of "path path 1" or "path path 0"
likewise; a pack of InsightFace's, which is a file by itself, in which nothing is run; templates, a folder in
InsightFace's form of IJB-B and IJB-C (`meta/`, `loose_crop/`), 1:1 and, where there are galleries, 1:N:

    --config.benchmarks="('heldout', 'lfw=PAIRS_FILE:FOLDER', 'agedb_30.bin', 'ijbc=templates:FOLDER')"

A recogniser from PyTorch, in a `.pth`, `.pt`, `.safetensors` or `.npz` file, or an `.onnx` file (which needs
'.[convert]'), is read as it is:

    python -m sface_jax.main --config=configs/verify.py --workdir=DIR --config.network=FILE \\
        --config.benchmarks=pairs.txt --config.root=FOLDER

Expected: the table in the log; DIR/verification with a JSON file a network, table.md, and index.html with ROC and DET
curves. With the paper's recipe about 99.1 % on LFW for "combined" and 91.9 % for "classification" (SFace-60). Seconds
on an accelerator, a minute or two on a CPU. Where a figure is lower than it should be, ask configs/doctor.py.

    python -m sface_jax.main --config=configs/verify.py:quickstart

Needs nothing: everything up to this stage on the embedded faces, in a few minutes on a CPU.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the evaluation of the paper's networks, or with variant "quickstart" the quickstart up to this stage."""
    if variant == "quickstart":
        from configs import quickstart

        return quickstart.up_to("verify")
    if variant:
        raise ValueError(f'configs/verify.py has no variant "{variant}": there is "quickstart"')
    config = ConfigDict()
    config.stage = "verify"
    config.networks = ("authentic", "classification", "distillation", "combined")  # under DIR/recognition, or paths
    config.network = ""  # a single one in their place, such as a PyTorch file
    # "heldout" or "verification", splits of DIR/authentic; "name=pairs_file:folder"; a pairs file alone; "pack.bin";
    # "name=templates:folder".
    config.benchmarks = ("heldout",)
    config.root = ""  # the folder of pictures of a pairs file alone
    config.crop = 1.0  # share of each picture's side to keep, about its centre; configs/doctor.py finds it
    config.preprocessing = ""  # in place of the networks' own, such as "imagenet bgr"; configs/doctor.py finds it
    config.baselines = ()  # ("pixels",) adds a matcher without learning
    config.folds = 10  # for files that have one fold only, or none
    config.uneven_folds = False  # allow folds of unequal length, where such a file does not divide
    config.batch_size = 256  # over all devices
    # Embeddings of picture and mirror image are put together by "sum" (as InsightFace does) or "concatenate"; "none"
    # takes the picture's alone. The first way is the network's result, the others are told beside it.
    config.flip = ("sum", "concatenate")
    config.norm_weighting = True  # of templates: a picture counts by the length of its embedding
    config.detector_weighting = True  # and by the detector's score, where there are some
    config.replicates = 1000  # of the bootstrap over subjects that gives the intervals; 0 leaves them out
    config.det_axes = "log"  # or "normal", deviates of the normal distribution
    config.show_authentic = False  # whether the page may show the pictures of the hardest pairs
    return config
