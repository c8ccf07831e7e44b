"""Accuracy against leakage: one synthetic dataset, recogniser and audit for each of many settings, and the curve.

    python -m sface_jax.main --config=configs/frontier.py --workdir=DIR

Needs nothing: the quickstart's generator, on procedural faces, is trained first (in a workdir of the quickstart it is
found). Every setting is then drawn, trained on, verified and audited. Expected: DIR/frontier with index.html,
frontier.json and frontier.csv, in about an hour on two CPU cores; cut off, the same command goes on. The more a
dataset looks like its people, the more accurate what learns from it, and the easier the link: settings off that
curve are the ones to leave.

A part of it, or settings of one's own, after the colon:

    --config=configs/frontier.py:psi               also per_class, strategy, kimg, filter, train, quick
    --config='configs/frontier.py:base;psi=0.7,per_class=16;strategy=class_centre,psi=0.5'

A setting is what it changes in the usual recipe ("base"), of these:

    psi, per_class, strategy, shared_seeds   keys of configs/synthesize.py
    kimg            an earlier checkpoint of the generator: thousands of pictures shown, where a checkpoint was kept
    min_class, max_other, max_authentic      rejection by the network `authentic`: cosines, see configs/synthesize.py
    exclude         the false positive rate at which a matcher's audit puts pictures on its exclusion list; without
                    these the set is trained on, and audited again by the matcher of all settings, which is another
    train           classification, distillation or combined: what the recogniser learns from
    seed            added to config.seed in drawing and training: the same setting again tells how much is luck

    --config=configs/frontier.py:full    or  'configs/frontier.py:full;base;psi=0.7'

The same at the size of the stages' own configs: each setting is a synthetic set, a training and an audit. Needs:
DIR/authentic with held-out identities, DIR/gan, and in DIR/recognition `authentic`, and `matcher`, trained on other
people. Where they are asked for by name, `kimg` needs those checkpoints (`keep_checkpoints` of configs/gan.py), and
`exclude` a third network, `second`, trained on other people too.

The variant `tiny` goes through all stages in some minutes; its figures mean nothing.
"""

from ml_collections import ConfigDict

from configs import classification, combined, distillation, gan, privacy, quickstart, synthesize, verify

SWEEPS = {
    "psi": ("base", "psi=0.85", "psi=0.7", "psi=0.5", "psi=0.3"),
    "per_class": ("base", "per_class=4", "per_class=8", "per_class=16", "per_class=64"),
    "strategy": (
        *("base", "strategy=shared_seeds", "strategy=class_centre,psi=0.7", "strategy=class_centre,psi=0.4"),
        *("strategy=identity_driven,psi=1", "strategy=identity_driven,psi=0.7"),
    ),
    "kimg": ("base", "kimg=16", "kimg=32", "kimg=48", "kimg=64", "kimg=80"),
    "filter": ("base", "max_authentic=0.7", "max_authentic=0.6", "max_authentic=0.5", "exclude=0.1", "exclude=0.01"),
    "train": ("base", "train=distillation", "train=combined"),
    "quick": ("base", "psi=0.5", "per_class=8", "max_authentic=0.6"),
    "tiny": ("base", "psi=0.5,per_class=4", "kimg=0.064", "exclude=0.1"),
}

# setting -> (stage, key, type)
KEYS = {
    "psi": ("synthesize", "psi", float),
    "per_class": ("synthesize", "per_class", int),
    "strategy": ("synthesize", "strategy", str),
    "shared_seeds": ("synthesize", "shared_seeds", int),
    "min_class": ("synthesize", "min_class_similarity", float),
    "max_other": ("synthesize", "max_other_similarity", float),
    "max_authentic": ("synthesize", "max_authentic_similarity", float),
    "kimg": ("synthesize", "checkpoint", float),
    "exclude": ("list", "exclude_rate", float),
    "train": ("train", "", str),
    "seed": ("seed", "", int),
}
REJECTION = ("min_class", "max_other", "max_authentic")
STRATEGIES = ("classification", "distillation", "combined")
STEPS = 350  # of every recogniser, whatever the number of its pictures: the quickstart's
SHARED = ("prepare", "authentic", "gan", "matcher")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the sweeps of a variant, or the settings that it lists: see above."""
    words = [word.strip() for word in variant.split(";") if word.strip()]
    scale = words.pop(0) if words and words[0] in ("full", "tiny") else ""
    wanted = words or (["tiny"] if scale == "tiny" else [name for name in SWEEPS if name not in ("quick", "tiny")])
    points = dict.fromkeys(point for word in wanted for point in SWEEPS.get(word, (word,)))
    settings = {point: _setting(point) for point in points}
    if scale == "full" and not words:  # these need what the stages' own configs do not leave
        settings = {point: setting for point, setting in settings.items() if not {"kimg", "exclude"} & set(setting)}
    recipe = _full() if scale == "full" else quickstart.get_config(scale)
    config = ConfigDict()
    config.seed = 0  # of every stage
    stages = []

    def add(key: str, stage: ConfigDict, more: int = 0) -> None:
        config[key] = stage.copy_and_resolve_references()
        if "seed" in stage:
            config[key].seed = config.get_ref("seed") + more
        stages.append(key)

    for key in SHARED if scale != "full" else ():
        add(key, recipe[key])
    if scale != "full":
        if scale == "tiny":
            config.gan.checkpoint_every = 4
        for strategy in STRATEGIES:
            recipe[strategy].steps = recipe[strategy].steps or STEPS
        _keep_ages(config.gan, [setting["kimg"] for setting in settings.values() if "kimg" in setting])
        if any("exclude" in setting for setting in settings.values()):
            add("second", recipe.matcher, more=1)  # makes the list; `matcher` judges
            config.second.name = "second"
    for point, setting in settings.items():
        for key, stage in _stages(name_of(point), setting, recipe).items():
            add(key, stage, more=0 if stage.stage == "privacy" else setting.get("seed", 0))
    add("verify", recipe.verify)
    config.verify.networks = tuple(name_of(point) for point in settings)
    config.verify.baselines = ()
    add("frontier", ConfigDict())
    config.frontier.stage = "frontier"
    config.frontier.points = tuple(settings)  # settings, as their names in DIR/points tell
    config.frontier.benchmark = "heldout"
    config.frontier.fmr = "1e-3"  # of the frozen threshold whose match rate is drawn
    config.stages = tuple(stages)
    return config


def name_of(point: str) -> str:
    """The name of a setting's folder and network: "psi=0.7,per_class=8" is "psi_0p7__per_class_8"."""
    return point.replace(" ", "").replace(",", "__").replace("=", "_").replace(".", "p")


def _setting(point: str) -> dict[str, float | int | str]:
    """Reads "psi=0.7,per_class=8"."""
    setting = {}
    for part in point.replace(" ", "").split(",") if point != "base" else ():
        key, _, value = part.partition("=")
        if key not in KEYS or not value:
            known = ", ".join(("full", *SWEEPS))
            raise ValueError(
                f'configs/frontier.py has no variant or setting "{part}": there are {known}, and settings such as '
                f'"psi=0.7,per_class=16" of {", ".join(KEYS)}'
            )
        setting[key] = KEYS[key][2](value)
    if setting.get("train", "combined") not in STRATEGIES:
        raise ValueError(f"train={setting['train']}: choose from {', '.join(STRATEGIES)}")
    return setting


def _stages(name: str, setting: dict[str, float | int | str], recipe: ConfigDict) -> dict[str, ConfigDict]:
    """The stages of one setting, in order."""
    folder = f"{{workdir}}/points/{name}"
    drawn, audit = (recipe[stage].copy_and_resolve_references() for stage in ("synthesize", "privacy"))
    audit.again = "changed"  # what it looks at is made here: a sweep that goes on need not audit it again
    network = recipe[setting.get("train", "classification")].copy_and_resolve_references()
    stages = {f"{name}_synthesize": drawn}
    drawn.output = network.dataset = audit.synthetic = f"{folder}/synthetic"
    for key, value in setting.items():
        if KEYS[key][0] == "synthesize" and key != "kimg":
            drawn[KEYS[key][1]] = value
    if set(setting) & set(REJECTION):
        drawn.recognizer = "{workdir}/recognition/authentic"
    if "kimg" in setting:
        drawn.checkpoint = str(round(setting["kimg"] * 1000 / recipe.gan.batch_size))
    if "exclude" in setting:
        drawn.output = f"{folder}/drawn"
        listing = stages[f"{name}_list"] = audit.copy_and_resolve_references()
        listing.update({"matchers": ("second",), "planted": 0, "synthetic": drawn.output, "output": f"{folder}/list"})
        listing.rates = tuple(sorted({*listing.rates, setting["exclude"]}, reverse=True))
        listing.exclude_rate = setting["exclude"]
        listing.filtered = audit.synthetic
        listing.update({"generator": "", "released": ()})
    network.name = name
    audit.update({"output": f"{folder}/privacy", "generator": "", "released": (name,), "exclude_rate": 0.0})
    return stages | {name: network, f"{name}_privacy": audit}


def _keep_ages(config: ConfigDict, kimg: list[float]) -> None:
    """Has the training of the generator keep the checkpoints that settings ask for."""
    config.keep_checkpoints = 1000
    every = config.checkpoint_every * config.batch_size / 1000
    for age in kimg:
        if not 0 < age <= config.kimg or age % every:
            raise ValueError(f"kimg={age:g}: choose multiples of {every:g}, up to {config.kimg:g}")


def _full() -> ConfigDict:
    """The recipes as the stages' own configs have them."""
    made = {"synthesize": synthesize, "privacy": privacy, "verify": verify, "gan": gan}
    made |= {"classification": classification, "distillation": distillation, "combined": combined}
    return ConfigDict({name: module.get_config() for name, module in made.items()})
