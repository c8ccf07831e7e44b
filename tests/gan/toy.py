"""The config of a GAN of a few thousand parameters, on `tests.recognition.toy.Toy`."""

from ml_collections import ConfigDict

from configs import gan


def config(**changes: object) -> ConfigDict:
    """Every phase is due within a few steps."""
    small = gan.get_config()
    small.update(
        {
            "z_dim": 8,
            "w_dim": 8,
            "d_mapping_layers": 1,
            "channel_base": 64,
            "d_channel_base": 64,
            "channel_max": 8,
            "dtype": "float32",
            "batch_size": 8,
            "r1_interval": 2,
            "path_length_interval": 2,
            "ada_interval": 2,
            "ada_kimg": 0.05,
            "watch_network": "",
            "log_every": 1,
            "sample_every": 100,
            "checkpoint_every": 3,
            **changes,
        }
    )
    return small
