"""Are all machines there, with their accelerators, and do they reach each other and the work directory?

    python -m sface_jax.main --config=configs/preflight.py --workdir=DIR --config.expect=gpu --config.devices=32

Needs nothing. Start it as the run that is to follow, with the same script of launch/ and in the same --workdir.
Expected: within seconds the processes with their hosts and devices, the mesh, and the time of one all-reduce over all
devices; the last line says "ready". Else one line that says what is wrong, and the status 2 for what has to be mended
(another accelerator than expected, other versions on some hosts, a work directory that not all see) or 75 where
processes or their answers were lost, which are named.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config; there are no variants."""
    if variant:
        raise ValueError(f'configs/preflight.py has no variant "{variant}"')
    config = ConfigDict()
    config.stage = "preflight"
    config.expect = ""  # "tpu", "gpu" or "cpu"; with "" any will do
    config.devices = 0  # how many there must be in all; 0: any number
    # Of patience with each step. Below SFACE_HEARTBEAT_SECONDS, after which the runtime ends all without names.
    config.seconds = 40.0
    config.mebibytes = 64  # that each device gives to the all-reduce
    config.mesh = ConfigDict({"data": -1, "model": 1})
    return config
