"""The paper's questions as curves, with means and intervals over seeds, on 1,000 procedural identities.

    for seed in 0 1 2; do
      python -m sface_jax.main --config=configs/study.py --workdir=runs/study/$seed --config.seed=$seed
    done

Needs nothing. One seed is one pipeline, with people, generator and recognisers of its own: a dataset of 1,400
identities, 200 of them held out, a teacher, a generator, synthetic sets, some thirty recognisers, each of the same
number of steps and each another answer to "what if", and the audits of ten sets. Expected: two to three hours a seed
on one CPU core; cut off, the same command goes on. Seeds share nothing and may run side by side. Many of the
recognisers are one program: with JAX_COMPILATION_CACHE_DIR set to a folder it is compiled once, which saves half a
minute each.

    python -m sface_jax.main --config=configs/study.py:figures --workdir=runs/study

Gathers the seeds that are there. Expected: within seconds runs/study/study, with index.html, study.md (the tables),
a .svg for each figure, and study.json (every figure of every seed). docs/RESULTS.md shows what came of it, and its
figures are drawn again from the figures of that run, which are kept:

    python -m sface_jax.main --config=configs/study.py:figures --workdir=DIR --config.results=docs/study/procedural.json

The variant `tiny` goes through all stages of a seed with everything cut down; its figures mean nothing.
"""

import itertools
import re

from ml_collections import ConfigDict

from configs import quickstart

STRATEGIES = ("classification", "distillation", "combined")

# The usual setting, of which each network below changes one thing.
CLASSES, PICTURES, STEPS = 250, 20, 300

EACH = (10, 20, 40, 60)  # synthetic pictures of an identity
IDENTITIES = (125, 250, 500, 1000)
AGES = (32, 64, 128, 192, 320)  # of the generator: thousands of pictures it was shown
TAUGHT = (32, 128)  # the younger ones whose pictures a teacher's students learn too
FREE = "free"
SAMPLING = {
    "psi 0.7": {"psi": 0.7},
    "1,000 shared latents": {"strategy": "shared_seeds"},
    "class centre, 0.7": {"strategy": "class_centre", "psi": 0.7},
    "identity-driven": {"strategy": "identity_driven"},
}
HEADS = {
    "softmax": "softmax(scale=32.0)",
    "ArcFace": "arcface(scale=32.0)",
    "ElasticFace-Cos": "elastic_cosface(scale=32.0)",
    "AdaFace": "adaface(scale=32.0)",
}
AUGMENTATIONS = {
    "mirror alone": ("flip",),
    "RandAugment (4, 16)": ("randaugment(layers=4, magnitude=16)", "flip", "translate", "light"),
}


USUAL = f"classification_{PICTURES}"
RELEASED = (*(f"{strategy}_{PICTURES}" for strategy in STRATEGIES), "authentic")
SETTING = f"{CLASSES:,} identities, {PICTURES} pictures of each, and {STEPS} steps for every network"


def get_config(variant: str = "") -> ConfigDict:
    """Returns a seed's pipeline, or the figures of all seeds: see above."""
    if variant == "figures":
        return _figures()
    if variant not in ("", "tiny"):
        raise ValueError(f'configs/study.py has no variant "{variant}": there are "figures" and "tiny"')
    recipe = quickstart.get_config()
    made = {**_shared(recipe), **_sets(recipe), **_networks(recipe), "networks_audit": _audit(recipe, "synthetic")}
    made["networks_audit"].update({"output": "{workdir}/audits/networks", "released": RELEASED})
    made["verify"] = recipe.verify
    made["verify"].networks = tuple(stage.name for stage in made.values() if stage.stage == "recognition")
    if variant == "tiny":
        made = _cut(made)
    config = ConfigDict()
    config.seed = 0  # of every stage
    config.stages = tuple(made)
    for key, stage in made.items():
        config[key] = stage.copy_and_resolve_references()
        if "seed" in stage:
            config[key].seed = config.get_ref("seed")
    return config


def _shared(recipe: ConfigDict) -> dict[str, ConfigDict]:
    """The dataset, the teacher, the generator and the audits' matcher."""
    recipe.prepare.update({"identities": 1400, "heldout_identities": 200, "matcher_identities": 200})
    recipe.prepare.pictures_per_identity = 20
    recipe.authentic.steps = 3 * STEPS
    recipe.matcher.steps = STEPS
    recipe.gan.kimg = float(AGES[-1])
    recipe.gan.keep_checkpoints = 1000
    return {key: recipe[key] for key in ("prepare", "authentic", "gan", "matcher")}


def _sets(recipe: ConfigDict) -> dict[str, ConfigDict]:
    """The synthetic sets, of which the first holds the usual one, and their audits."""
    ages = {f"age_{age}": {"checkpoint": str(age * 1000 // recipe.gan.batch_size)} for age in AGES[:-1]}
    others = ages | {_name("sampling", label): keys for label, keys in SAMPLING.items()}
    made = {}
    for name, keys in {
        "synthetic": {"per_class": EACH[-1]},
        "identities": {"classes": IDENTITIES[-1]},
        **others,
    }.items():
        drawn = made[f"{name}_set"] = recipe.synthesize.copy_and_resolve_references()
        drawn.update(
            {"checkpoint": "latest", "classes": CLASSES, "per_class": PICTURES, "output": _folder(name), **keys}
        )
    for name in ("synthetic", *others, "identities"):
        made[f"{name}_audit"] = _audit(recipe, name)
    return made


def _audit(recipe: ConfigDict, name: str) -> ConfigDict:
    audit = recipe.privacy.copy_and_resolve_references()
    audit.update({"synthetic": _folder(name), "output": f"{{workdir}}/audits/{name}", "again": "changed"})
    audit.update({"max_pictures": 6000, "exclude_rate": 0.0, "generator": "", "released": ()})
    return audit


def _networks(recipe: ConfigDict) -> dict[str, ConfigDict]:
    """The recognisers: each is the usual one but for what its name says."""
    made = {}

    def add(name: str, strategy: str = "classification", data: str = "synthetic", **keys: object) -> None:
        config = made[name] = recipe[strategy].copy_and_resolve_references()
        config.update({"name": name, "dataset": _folder(data), "steps": STEPS})
        config.update({"classes": CLASSES, "pictures_per_class": PICTURES, **keys})

    for strategy in STRATEGIES:
        for pictures in EACH:
            add(f"{strategy}_{pictures}", strategy, pictures_per_class=pictures)
    for count in IDENTITIES:
        add(f"authentic_{count}", data="authentic", classes=count)
        if count != CLASSES:  # of that many the usual one is made
            add(f"identities_{count}", data="identities", classes=count)
    for age in AGES[:-1]:
        add(f"age_{age}", data=f"age_{age}")
    for age in TAUGHT:
        add(f"distillation_age_{age}", "distillation", data=f"age_{age}")
    for label in SAMPLING:
        add(_name("sampling", label), data=_name("sampling", label))
    for label, head in HEADS.items():
        add(_name("head", label), head=head)
    for label, chain in AUGMENTATIONS.items():
        add(_name("augment", label), augmentations=chain)
    return made


def _name(kind: str, label: str) -> str:
    """("sampling", "psi 0.7") is "sampling_psi_0p7"."""
    return "_".join(re.findall(r"[a-z0-9]+", f"{kind} {label}".lower().replace("0.", "0p")))


def _folder(name: str) -> str:
    return f"{{workdir}}/{name}" if name in ("authentic", "synthetic") else f"{{workdir}}/sets/{name}"


def _cut(made: dict[str, ConfigDict]) -> dict[str, ConfigDict]:
    """A pipeline through every kind of stage, with everything cut down."""
    small = quickstart.get_config("tiny")
    kept = ("prepare", "authentic", "gan", "matcher", "synthetic_set", "age_32_set", "synthetic_audit", "age_32_audit")
    kept += ("classification_10", *RELEASED, "age_32", "networks_audit", "verify")
    cut = {key: made[key] for key in kept}
    for key, stage in cut.items():
        if stage.stage in ("prepare", "gan"):
            cut[key] = small[key]
        elif stage.stage == "synthesize":
            stage.update({"classes": 8, "per_class": 6, "batch_size": 20})
        elif stage.stage == "recognition":
            changed = ("steps", "batch_size", "widths", "embedding_size", "log_every")
            stage.update({name: small.combined[name] for name in changed})
            stage.update({"classes": min(stage.classes, 8), "pictures_per_class": min(stage.pictures_per_class, 4)})
    cut["gan"].checkpoint_every = 4
    cut["age_32_set"].checkpoint = "4"
    cut["verify"].networks = tuple(stage.name for stage in cut.values() if stage.stage == "recognition")
    return cut


def _figures() -> ConfigDict:
    """The figures, and the questions that they answer."""
    config = ConfigDict()
    config.stage = "study"
    config.title = "What makes synthetic faces useful, and what makes them leak"
    config.runs = tuple(f"{{workdir}}/{seed}" for seed in (0, 1, 2))  # a work directory each
    config.results = ""  # a study.json in their place: its figures are drawn and told again
    config.output = "{workdir}/study"
    config.benchmark = "heldout"
    # Each has the name of its file, title, caption and measure, and
    #   lines      (label, ((setting, network), ...)) over `x`, and levels, (label, network), which are horizontal;
    #   or bars    (label, network)
    #   questions  (in words, networks, networks): have the first more of the measure than the second?
    # For measures other than accuracy an audit's folder stands in the network's place, maybe with "@" and a matcher
    # other than the first, and "#" and a part of what it measured: see AUDITS of sface_jax/report/study.py.
    alike = relations("relations", "audits/synthetic")
    config.charts = (
        _pictures(),
        _identities(),
        alike,
        *_ages(),
        _released(),
        *_sampling(),
        _margins(),
        _augmentation(),
    )
    return config


def _pictures() -> dict[str, object]:
    def each(kind: str) -> list[str]:
        return [f"{kind}_{count}" for count in EACH]

    first, last = EACH[0], EACH[-1]
    steps = [("classification", more, less) for less, more in itertools.pairwise(EACH)]
    return {
        "name": "pictures",
        "title": "Do more pictures of each identity help?",
        "caption": f"{CLASSES:,} synthetic identities, {STEPS} steps for every network, however many pictures. "
        f"“Authentic” learned {PICTURES} authentic pictures of the same identities in as many steps; the teacher all "
        f"authentic pictures of {IDENTITIES[-1]:,} identities, in {3 * STEPS}.",
        "measure": "accuracy",
        "x": "synthetic pictures of each identity",
        "lines": [(kind, list(zip(EACH, each(kind), strict=True))) for kind in STRATEGIES],
        "levels": [("teacher", "authentic"), ("authentic", f"authentic_{CLASSES}"), ("comparing pixels", "pixels")],
        "questions": [
            (f"{more} against {less}", each(more), each(less))
            for more, less in (
                ("distillation", "classification"),
                ("combined", "classification"),
                ("combined", "distillation"),
            )
        ]
        + [
            (f"{kind}: {more} against {less} pictures", [f"{kind}_{more}"], [f"{kind}_{less}"])
            for kind, more, less in (*steps, *((kind, last, first) for kind in STRATEGIES))
        ]
        + [
            (f"authentic against classification, {PICTURES} pictures", [f"authentic_{CLASSES}"], [USUAL]),
            (f"teacher against distillation, {last} pictures", ["authentic"], [f"distillation_{last}"]),
        ],
    }


def _identities() -> dict[str, object]:
    lines = {
        "authentic pictures": [f"authentic_{count}" for count in IDENTITIES],
        "classification": [f"identities_{count}" if count != CLASSES else USUAL for count in IDENTITIES],
    }
    return {
        "name": "identities",
        "title": "Do more identities help?",
        "caption": f"{PICTURES} pictures of each identity and {STEPS} steps for every network; labels alone.",
        "measure": "accuracy",
        "x": "identities",
        "lines": [(kind, list(zip(IDENTITIES, names, strict=True))) for kind, names in lines.items()],
        "questions": [
            (f"{kind}: {IDENTITIES[-1]:,} against {IDENTITIES[0]}", [names[-1]], [names[0]])
            for kind, names in lines.items()
        ],
    }


def relations(name: str, audit: str) -> dict[str, object]:
    """A chart of how well one identity is told from two, in the relations that the paper compares."""
    pairs = {
        "two authentic pictures": f"{audit}#authentic",
        "two synthetic pictures": f"{audit}#synthetic",
        "an authentic and a synthetic one": audit,
    }
    title = "How well are two pictures of one label told from two of different ones?"
    caption = (
        "Each relation at its own threshold, by the audit's matcher. 50 % would be a coin toss. The paper's histograms "
        "have 7.6 %, 21.7 % and 29.2 %, of other faces and by another matcher."
    )
    return bars(name, title, caption, "eer", pairs)


def by_age(stem: str, younger: tuple[int, ...]) -> dict[int, str]:
    """What is named after the age of a younger generator."""
    return {age: f"{stem}_{age}" for age in younger}


def _ages() -> list[dict[str, object]]:
    last = AGES[-1]
    labels = by_age("age", AGES[:-1]) | {last: USUAL}
    students = by_age("distillation_age", TAUGHT) | {last: f"distillation_{PICTURES}"}
    audits = by_age("audits/age", AGES[:-1]) | {last: "audits/synthetic"}
    every = {age: f"{audit}#all" for age, audit in audits.items()}
    others = {age: f"{audit}#different" for age, audit in audits.items()}
    lines = {
        "match_rate": {"same label": audits, "different labels": others},
        "label_rank1": {"by one picture": audits, "by all of a label": every},
        "membership": {"members against others": audits},
        "accuracy": {"classification": labels, "distillation": students},
    }
    levels = {
        "match_rate": [("two authentic pictures of an identity", "audits/synthetic#authentic")],
        "membership": [("pictures of all 1,000 identities", "audits/identities")],
        "accuracy": [("comparing pixels", "pixels")],
    }
    told = {
        "match_rate": (
            "What does a longer training of the generator give away?",
            "Pairs of an authentic and a synthetic picture that match at a threshold which one in 1,000 pairs of "
            "different authentic identities reaches, by a matcher that was trained on others. 0 is drawn at 0.01 %.",
        ),
        "label_rank1": (
            "How often is the identity behind a synthetic picture named?",
            f"Of {IDENTITIES[-1]:,} authentic identities the matcher finds the label's most alike to a synthetic "
            "picture, or to the mean of all pictures of a label: by chance 0.1 %.",
        ),
        "membership": (
            "Can it be told whom the generator learned?",
            f"{IDENTITIES[-1]:,} identities that it learned against 200 that it did not, by how alike the synthetic "
            f"pictures are to theirs. The curve's sets hold {CLASSES} of the labels: were the others like strangers, "
            "0.625 would be the most.",
        ),
        "accuracy": ("What does a longer training of the generator bring?", f"{SETTING}."),
    }
    charts = []
    for measure, (title, caption) in told.items():
        questions = [
            (f"{line}: {more} against {less} thousand", [names[more]], [names[less]])
            for line, names in lines[measure].items()
            for more, less in ((last, AGES[0]), (last, AGES[2]), (AGES[2], AGES[1]))
            if names is not others and less in names
        ]
        charts.append(
            {
                "name": f"age_{measure}",
                "title": title,
                "caption": caption,
                "measure": measure,
                "x": "thousand pictures that the generator was shown",
                "lines": [(line, list(names.items())) for line, names in lines[measure].items()],
                "levels": levels.get(measure, []),
                "questions": questions,
            }
        )
    return charts


def _released() -> dict[str, object]:
    title = "What do the recognisers give away?"
    caption = (
        f"{IDENTITIES[-1]:,} identities that the generator and the teacher learned against 200 that they did not, by "
        "how the recogniser embeds authentic pictures of them. The teacher itself is the control."
    )
    kinds = (*STRATEGIES, "the teacher itself")
    networks = {kind: f"audits/networks#{name}" for kind, name in zip(kinds, RELEASED, strict=True)}
    return bars("released", title, caption, "released", networks)


def _sampling() -> list[dict[str, object]]:
    return [
        bars(
            "sampling",
            "Which sampling strategy teaches most?",
            f"Classification; {SETTING}. The paper's text has latents drawn freely, its released script 1,000 that all "
            "classes share; “identity-driven” is this project's reading of SFace2.",
            "accuracy",
            {FREE: USUAL, **{label: _name("sampling", label) for label in SAMPLING}},
        ),
        bars(
            "sampling_leakage",
            "Which sampling strategy gives least away?",
            "The same sets: same-label pairs that match at a threshold which one in 1,000 pairs of strangers reaches.",
            "match_rate",
            {
                FREE: "audits/synthetic",
                **{label: f"audits/{_name('sampling', label)}" for label in SAMPLING},
            },
        ),
    ]


def _margins() -> dict[str, object]:
    names = {"CosFace": USUAL, **{label: _name("head", label) for label in HEADS}}
    return bars("margins", "Which margin?", f"Classification; {SETTING}, and a scale of 32.", "accuracy", names)


def _augmentation() -> dict[str, object]:
    names = {"mirror, shift, light": USUAL, **{label: _name("augment", label) for label in AUGMENTATIONS}}
    title = "Does augmentation of synthetic pictures help?"
    return bars("augmentation", title, f"Classification; {SETTING}.", "accuracy", names)


def bars(name: str, title: str, caption: str, measure: str, names: dict[str, str]) -> dict[str, object]:
    """A chart of settings, the first of which the others are held against."""
    (usual, first), *others = names.items()
    questions = [(f"{label} against {usual}", [other], [first]) for label, other in others]
    about = {"name": name, "title": title, "caption": caption, "measure": measure}
    return about | {"bars": list(names.items()), "questions": questions}
