"""Programs compiled for a TPU slice that need not be at hand: whether they fit there, and what they cost.

    python -m sface_jax.main --config=configs/compile.py --workdir=DIR

Needs: the compiler (`pip install '.[tpu]'`), no TPU; where there is none, JAX_PLATFORMS=cpu in the environment. One
process at a time may use it. For the devices at hand: --config.topology=
Expected, in some minutes: a table of the GAN's programs at the paper's size, 128 pixels, 10,572 classes, 32 pictures on
each of 16 chips: operations (counted by hand, compiled, their ratio), memory, bytes moved and bytes sent, the least
time (the roofline's) and what XLA expects; with each collective. A program that does not fit says so, and what to
change. Also DIR/compile/gan.json.

    python -m sface_jax.main --config=configs/compile.py:recognition --workdir=DIR

The same for a recogniser, iResNet-50 at 112 pixels in bfloat16, 64 pictures on each of 256 chips: its parts in
training, and the step of each strategy (the teacher of those that have one runs in the step). With a million
identities, and only one program:

    --config.classes=1000000 --config.topology=v5e:4x4 --config.programs="('classification',)"

Also `:synthesis` (a batch drawn on one machine's chips), `:embedding` (as verification and audit embed) and `:matching`
(the audit's engine: all of SFace-60 against all of CASIA-WebFace).

    python -m sface_jax.main --config=configs/compile.py:paper --workdir=DIR

All of the paper on v5e:4x4, v5e:16x16 and v6e:16x16, in some four hours: each program, fits or not, and the
time and chip-hours of GAN, synthesis, four trainings and audit together. Expected: DIR/compile/paper.md, the tables of
docs/SCALE.md. Cut off, it goes on with what is missing; after a change of the code, take another DIR.

    JAX_OPTIMIZATION_LEVEL=O0 python -m sface_jax.main --config=configs/compile.py:scaling --workdir=OTHER

What each program sends per chip and step on 4, 16, 64 and 256 chips, in some minutes: OTHER/compile/scaling.md. What is
sent does not depend on how well the rest is optimised; memory and times do, so that the paper's DIR is not for this.

Every key of configs/gan.py (or of configs/classification.py) that shapes networks or steps may be set.
"""

import itertools
import math

from ml_collections import ConfigDict

from configs import classification, gan, synthesize

VARIANTS = ("recognition", "synthesis", "embedding", "matching", "paper", "scaling")
TOPOLOGIES = ("v5e:4x4", "v5e:16x16", "v6e:16x16")
SLICES = ("v5e:2x2", "v5e:4x4", "v5e:8x8", "v5e:16x16")
PHASES = ("g_main", "g_path", "d_main", "d_r1", "finish")
SYNTHETIC, AUTHENTIC = 634_320, 494_414  # pictures of SFace-60 and of CASIA-WebFace


def get_config(variant: str = "") -> ConfigDict:
    """Returns the GAN's paper configuration on 16 chips, or what a variant compiles, see above."""
    if not variant:
        return _gan("compile_gan", per_device=32, batch=512)
    if variant not in VARIANTS:
        raise ValueError(f'configs/compile.py has no variant "{variant}": choose from {", ".join(VARIANTS)}')
    if variant == "recognition":
        config = _recognition("compile_recognition", "v5e:16x16", 64)
        config.dtype = "bfloat16"
        return config
    if variant == "matching":
        return _matching("compile_matching", "v5e:16x16")
    if variant in ("synthesis", "embedding"):
        return (_synthesis if variant == "synthesis" else _embedding)(f"compile_{variant}")
    return _paper() if variant == "paper" else _scaling()


def _stage(stage: str, name: str, topology: str, config: ConfigDict) -> ConfigDict:
    """Makes a config that of a stage that compiles."""
    config.name, config.stage = name, stage
    config.topology = topology  # also "v6e:16x16"; "" is the devices at hand
    config.programs = ()  # which of them; () compiles all
    return config


def _gan(name: str, topology: str = "v5e:4x4", size: int = 128, per_device: int = 2, batch: int = 32) -> ConfigDict:
    """The GAN, by StyleGAN2-ADA's rules for a batch other than 32 or another size."""
    config = _stage("compile", name, topology, gan.get_config())
    config.image_size = size
    config.classes = 10572
    config.batch_per_device = per_device
    config.r1_gamma = 0.0002 * size**2 / batch
    config.ema_kimg = 10.0 * batch / 32
    return config


def _recognition(name: str, topology: str = "v5e:4x4", per_device: int = 32) -> ConfigDict:
    config = _stage("compile_recognition", name, topology, classification.get_config())
    config.classes = 10572
    config.batch_per_device = per_device
    return config


def _synthesis(name: str, topology: str = "v5e:2x2") -> ConfigDict:
    config = _stage("compile_synthesis", name, topology, synthesize.get_config())  # of one machine
    config.batch_per_device = config.batch_size
    config.classes = 10572
    own = gan.get_config()
    shape = ("z_dim", "w_dim", "g_mapping_layers", "d_mapping_layers", "channel_base", "d_channel_base", "channel_max")
    for key in (*shape, "mbstd_group_size", "crop", "transition_end_kimg", "dtype"):
        config[key] = own[key]
    config.image_size = 128
    return config


def _embedding(name: str, topology: str = "v5e:4x4") -> ConfigDict:
    config = _stage("compile_embedding", name, topology, ConfigDict())
    config.network = "iresnet50"
    config.embedding_size = 512
    config.dtype = "float32"
    config.image_size = 112
    config.mirror = True  # embed mirror images too
    config.batch_per_device = 64
    return config


def _matching(name: str, topology: str = "v5e:4x4") -> ConfigDict:
    config = _stage("compile_matching", name, topology, ConfigDict())
    config.n = SYNTHETIC
    config.m = AUTHENTIC
    config.dimensions = 512
    config.queries_per_device = 4096  # of the 16,384 that a process with four chips takes at a time
    config.tile = 8192  # pictures of the gallery at a time
    config.bins = 20_000
    config.thresholds = 3
    config.top_k = 10
    return config


class _Chain:
    """Stages one after another, each of which is skipped where it finished before."""

    def __init__(self, name: str):
        self.config, self.name, self.names = ConfigDict(), name, []

    def add(self, config: ConfigDict, **changes: object) -> None:
        """Adds a stage with some changes of its config."""
        config.update(changes)
        config.again = "changed"
        name, config.name = config.name, f"compile_{config.name}"
        self.config[config.name] = config
        self.names.append(name)

    def end(self, table: ConfigDict) -> ConfigDict:
        """The config of all of them, and of the stage that makes a table of what they wrote."""
        table.name = table.stage = f"compile_{self.name}"
        self.config[table.name] = table
        self.config.stages = (*(f"compile_{name}" for name in self.names), table.name)
        return self.config


def _chips(topology: str) -> int:
    return math.prod(map(int, topology.split(":")[1].split("x")))


def _slug(topology: str) -> str:
    return topology.replace(":", "_")


def _paper() -> ConfigDict:
    chain, recipes = _Chain("paper"), ConfigDict()
    for topology in TOPOLOGIES:
        at, chips = _slug(topology), _chips(topology)
        strategies = ("classification", "distillation", "combined")
        chain.add(_matching(f"matching_{at}", topology))
        chain.add(_embedding(f"embedding_{at}", topology))
        for network, classes in itertools.product(("iresnet50", "iresnet100"), (10572, 1_000_000)):
            name = f"{network}_{'1m_' if classes > 10572 else ''}{at}"
            wanted = strategies if chips == 16 and name == f"iresnet50_{at}" else strategies[:1]
            chain.add(_recognition(name, topology, 512 // chips), network=network, classes=classes, programs=wanted)
        if chips > 16:
            chain.add(_recognition(f"iresnet50_scaled_{at}", topology, 16), programs=strategies)
        drawn = f"synthesis_{topology.split(':')[0]}_2x2"
        if drawn not in chain.names:
            chain.add(_synthesis(drawn, f"{topology.split(':')[0]}:2x2"))
        for size in (128, 256):
            chain.add(_gan(f"gan{size}_{at}", topology, size, batch=2 * chips), programs=PHASES)
        recipes[f"{topology}, {'as published' if chips == 16 else 'batches scaled'}"] = ConfigDict(
            {
                "gan": f"gan128_{at}",
                "synthesis": drawn,
                "recognition": f"iresnet50_{at}" if chips == 16 else f"iresnet50_scaled_{at}",
                "embedding": f"embedding_{at}",
                "matching": f"matching_{at}",
            }
        )
    table = ConfigDict()
    table.rows, table.recipes = tuple(chain.names), recipes
    own = gan.get_config()
    intervals = {"g_path": own.path_length_interval, "d_r1": own.r1_interval}
    table.intervals = ConfigDict({phase: intervals.get(phase, 1) for phase in PHASES})
    table.efficiency = 0.4  # an assumption: the share of the roofline's speed that a real run reaches
    table.kimg = 25000.0
    table.epochs = 64.0
    table.synthetic, table.authentic = SYNTHETIC, AUTHENTIC
    table.matchers = 2
    return chain.end(table)


def _scaling() -> ConfigDict:
    chain, table = _Chain("scaling"), ConfigDict()
    families: dict[str, list[str]] = {}

    def add(family: str, name: str, config: ConfigDict, **changes: object) -> None:
        chain.add(config, **changes)
        families.setdefault(family, []).append(name)

    for topology in SLICES:
        at, chips = _slug(topology), _chips(topology)
        add("audit", f"matching_{at}", _matching(f"matching_{at}", topology))
        add("iresnet50", f"embedding_{at}", _embedding(f"embedding_{at}", topology))
        for classes, model in ((10572, 1), (10572, 16), (1_000_000, 1)):
            if model < chips:
                family = f"iresnet50, {classes:,} classes" + (f" in groups of {model}" if model > 1 else "")
                own = _recognition(f"iresnet50_{classes}_{model}_{at}", topology, per_device=16)
                mesh = ConfigDict({"data": -1, "model": model})
                add(family, own.name, own, classes=classes, mesh=mesh, programs=("classification",))
        add("GAN 128", f"gan128_{at}", _gan(f"gan128_{at}", topology, batch=2 * chips), programs=PHASES)
    add("synthesis", "synthesis_v5e_2x2", _synthesis("synthesis_v5e_2x2"))  # a machine draws by itself
    table.families = ConfigDict({family: tuple(names) for family, names in families.items()})
    return chain.end(table)
