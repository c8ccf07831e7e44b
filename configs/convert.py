"""Networks from PyTorch as folders of ours; ours in the formats that others read. The source decides what is done.

A recogniser for deployment: any folder that a recognition config wrote, or any file below.

    python -m sface_jax.main --config=configs/convert.py --workdir=runs/onnx \\
        --config.source=DIR/recognition/combined --config.output=combined.onnx

    .onnx                        pictures [N,3,S,S] to embeddings, preprocessing in the metadata; for any runtime
    .stablehlo                   pictures [n,S,S,3] to embeddings, on CPUs, GPUs and TPUs; jax.export.deserialize
    .pth .pt .safetensors .npz   the state dict under PyTorch's names, which torch.load and its module take

Expected: the file in seconds; but for .onnx, architecture and preprocessing in combined.json beside it. The file is
read again, and its embeddings of random pictures are compared with the network's: the log tells the difference, about
1e-6, and above 1e-4 nothing is kept. The model card that configs/report.py wrote goes along, as combined.README.md.
Needs the packages of '.[convert]' for .onnx and .safetensors.

A recogniser from PyTorch (`.pth`, `.pt`, `.safetensors`, `.npz`; iResNets and MobileFaceNets, told by their arrays):

    python -m sface_jax.main --config=configs/convert.py --workdir=DIR --config.source=backbone.pth

Expected: DIR/recognition/backbone, a recogniser like one that was trained here, say for --config.teacher.

A generator and discriminator of StyleGAN2-ADA for PyTorch:

    python -m sface_jax.main --config=configs/convert.py --workdir=DIR --config.source=network.pkl

Needs: the network pickle that the official PyTorch code wrote (it is read without PyTorch, and nothing in it is
executed), or state dicts in one `.npz` or `.safetensors` file, their names under G_ema/ (or G/) and D/.
Expected: DIR/gan with network.json and a checkpoint, in seconds; configs/synthesize.py draws from it. The original is
in there to the last bit; activations are not clamped as the original's float16 layers do.

And back:

    python -m sface_jax.main --config=configs/convert.py --workdir=runs/export --config.source=DIR/gan \\
        --config.output=network.npz

Needs: a folder that configs/gan.py or this stage wrote.
Expected: network.npz (or .safetensors) with the state dicts G_ema/ and D/ under PyTorch's names, in its layouts.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the conversion of `source`, which has no default."""
    if variant:
        raise ValueError(f'configs/convert.py has no variants, so no "{variant}"')
    config = ConfigDict()
    config.stage = "convert"
    config.source = ""  # a file from PyTorch, or a folder of ours
    # A new file, or a new folder; without, {workdir}/gan, or {workdir}/recognition/ and the name of the source.
    config.output = ""

    # A recogniser from PyTorch, what its file does not tell: pictures enter as (picture / 255 - mean) / std. Empty is
    # what the published networks want.
    config.mean = ()  # of the three channels, as in (0.5, 0.5, 0.5)
    config.std = ()
    config.channel_order = ""  # "rgb" or "bgr"

    # A generator.
    config.checkpoint = "best"  # of a folder of ours: the best by the watched metric, where there is one; or "latest"
    config.discriminator = True  # False converts the generator alone: CIFAR's D, say, has another architecture
    config.mbstd_group_size = 4  # group of D's minibatch deviation, where the source does not tell (a pickle does)
    return config
