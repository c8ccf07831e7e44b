"""The paper's experiment on photographs of people: LFW's View 1, from its training identities to a report.

    python -m sface_jax.main --config=configs/study_lfw.py --workdir=runs/study_lfw

Needs: LFW's View 1 and the open MobileFaceNet in ../shared/data, or in another folder, which follows a colon:

    lfw/dev_train/<identity>/*.jpg       280 people for the generator, 64 held out from it, 86 for the audit's matcher
    lfw/dev_test/, lfw/pairsDevTest.txt  500 + 500 pairs of others
    weights/mobilefacenet_foamliu.pt     the teacher, trained on other photographs

    --config=configs/study_lfw.py:FOLDER

Draws 60 pictures of each identity, trains the three strategies on the first 10, 20, 40 and 60 of them and on the
authentic pictures, verifies all on View 1's test pairs, audits the pictures by a network that learned 86 other people
and by the open one, the recognisers by the former; and goes through the same with what the generator drew when it was
younger. Expected: DIR/report, DIR/privacy and DIR/study, at 32 pixels, in under three hours on one CPU core; cut off,
the same command goes on. docs/RESULTS.md has the figures. A third of an hour is saved by keeping what is compiled for
the next network:

    export JAX_COMPILATION_CACHE_DIR=runs/compiled

    python -m sface_jax.main --config='configs/study_lfw.py:accelerator;FOLDER' --workdir=runs/study_lfw

The same at 112 pixels, with the generator at full size for 2,000 thousand pictures, and iResNet-18: for one GPU.
Expected: not measured.

    python -m sface_jax.main --config=configs/study_lfw.py:figures --workdir=DIR --config.results=docs/study/lfw.json

Draws the figures of docs/RESULTS.md again from the figures of its run.
"""

from ml_collections import ConfigDict

from configs import convert, gan, quickstart, study

EACH = (10, 20, 40, 60)  # synthetic pictures of an identity
AGES = (32, 64, 128, 192)  # of the generator: thousands of pictures it was shown
AGES_LARGE = (128, 512, 1024, 2000)
STEPS = 400  # of every recogniser
PICTURES_AUDITED = 6000  # synthetic ones, as many of each identity
TEACHER = "{workdir}/recognition/teacher"


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment, or that of a variant: see above."""
    if variant == "figures":
        return _figures(AGES)
    words = [word for word in variant.split(";") if word]
    large = "accelerator" in words
    (folder,) = [word for word in words if word != "accelerator"] or ["../shared/data"]
    ages = AGES_LARGE if large else AGES
    made = {**_before(folder, large), **_sets(ages), **_networks(ages, large)}
    made["verify"] = _verify(folder, [stage.name for stage in made.values() if stage.stage == "recognition"])
    made |= {**_audits(ages), "report": quickstart.get_config().report, "study": _figures(ages)}
    config = ConfigDict()
    config.seed = 0  # of every stage
    config.stages = tuple(made)
    for key, stage in made.items():
        config[key] = stage.copy_and_resolve_references()
        if "seed" in stage:
            config[key].seed = config.get_ref("seed")
    return config


def name_of(strategy: str, pictures: int) -> str:
    """The name of a recogniser; those of all pictures are called as the paper's are."""
    return strategy if pictures == EACH[-1] else f"{strategy}_{pictures}"


def _before(folder: str, large: bool) -> dict[str, ConfigDict]:
    """The dataset, the teacher and the generator."""
    recipe = quickstart.get_config("folder")
    recipe.prepare.source = f"{folder}/lfw/dev_train"
    teacher = convert.get_config()
    teacher.update({"source": f"{folder}/weights/mobilefacenet_foamliu.pt", "output": TEACHER})
    made = {"prepare": recipe.prepare, "teacher": teacher, "matcher": recipe.matcher, "gan": recipe.gan}
    if large:
        recipe.prepare.image_size = 112
        made["gan"] = gan.get_config()
        made["gan"].update(
            {"crop": 8, "kimg": float(AGES_LARGE[-1]), "ada_kimg": 100.0, "checkpoint_every": 2000, "watch_every": 2000}
        )
    else:
        made["gan"].update({"channel_base": 512, "d_channel_base": 512, "channel_max": 64, "batch_size": 32})
        made["gan"].kimg = float(AGES[-1])
    made["gan"].update({"keep_checkpoints": 1000, "watch_network": "{workdir}/recognition/matcher"})
    _size(made["matcher"], large)
    return made


def _sets(ages: tuple[int, ...]) -> dict[str, ConfigDict]:
    """The synthetic set, and smaller ones of the generator when it was younger."""
    made = {}
    for age in ages:
        drawn = made[f"synthetic_{age}" if age != ages[-1] else "synthesize"] = quickstart.get_config().synthesize
        drawn.checkpoint = "latest"
        drawn.per_class = EACH[-1]
        if age != ages[-1]:
            drawn.update(
                {"checkpoint": str(age * 1000 // 32), "output": f"{{workdir}}/sets/age_{age}", "per_class": 10}
            )
    return made


def _networks(ages: tuple[int, ...], large: bool) -> dict[str, ConfigDict]:
    """The three strategies on the first so many synthetic pictures, and on the authentic ones; two on younger sets."""
    recipe, made = quickstart.get_config("teacher"), {}

    def add(name: str, strategy: str, **keys: object) -> None:
        config = made[name] = recipe[strategy].copy_and_resolve_references()
        config.update({"name": name, "teacher": TEACHER, "teacher_cache": True, "steps": STEPS, **keys})
        _size(config, large)

    for strategy in study.STRATEGIES:
        add(f"authentic_{strategy}", strategy, dataset="{workdir}/authentic")
        for pictures in EACH:
            add(name_of(strategy, pictures), strategy, dataset="{workdir}/synthetic", pictures_per_class=pictures)
    for strategy, younger in _younger(ages).items():
        for age in younger:
            add(f"{strategy}_age_{age}", strategy, dataset=f"{{workdir}}/sets/age_{age}")
    made["authentic"] = made.pop("authentic_classification")
    made["authentic"].name = "authentic"
    return made


def _younger(ages: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The ages of younger generators whose pictures are learned."""
    return {"classification": ages[:-1], "distillation": ages[:1]}


def _size(config: ConfigDict, large: bool) -> None:
    """Gives a recogniser the size of its machine."""
    if large:
        config.update({"network": "iresnet18", "dtype": "bfloat16", "steps": 10 * STEPS, "dropout": 0.4})
    config.embedding_size = 128  # the teacher's


def _verify(folder: str, networks: list[str]) -> ConfigDict:
    config = quickstart.get_config().verify
    config.networks = (*networks, "teacher")
    config.benchmarks = ("heldout", f"view1={folder}/lfw/pairsDevTest.txt:{folder}/lfw/dev_test")
    return config


def _audits(ages: tuple[int, ...]) -> dict[str, ConfigDict]:
    """Of the pictures, of the recognisers, and of the generator when it was younger."""
    pictures = quickstart.get_config().privacy
    pictures.update({"max_pictures": PICTURES_AUDITED, "exclude_rate": 0.0})
    students = pictures.copy_and_resolve_references()
    students.update({"teacher": "teacher", "output": "{workdir}/privacy_networks", "planted": 0})
    students.released = (*study.STRATEGIES, "authentic")
    # The teacher had no part in the pictures: it may judge them besides, but not its own students.
    pictures.update({"matchers": ("matcher", "teacher"), "teacher": "", "released": ()})
    made = {"privacy_networks": students, "privacy": pictures}  # the last one's figures stand in the dataset's card
    for age in ages[:-1]:
        audit = made[f"privacy_{age}"] = pictures.copy_and_resolve_references()
        audit.update({"synthetic": f"{{workdir}}/sets/age_{age}", "output": f"{{workdir}}/audits/age_{age}"})
        audit.update({"matchers": ("matcher",), "generator": "", "planted": 0, "again": "changed"})
    return made


def _figures(ages: tuple[int, ...]) -> ConfigDict:
    """The figures, and the questions that they answer; what a chart is, configs/study.py tells."""
    config = study.get_config("figures")
    config.title = "LFW: what synthetic pictures of photographed people teach, and what they give away"
    config.runs = ("{workdir}",)
    config.benchmark = "view1"
    config.charts = (_pictures(), _scores(), _relations(), *_ages(ages), _released())
    return config


def _pictures() -> dict[str, object]:
    each = {kind: [name_of(kind, count) for count in EACH] for kind in study.STRATEGIES}
    pairs = (("distillation", "classification"), ("combined", "classification"), ("combined", "distillation"))
    questions = [(f"{more} against {less}", each[more], each[less]) for more, less in pairs]
    for kind, names in each.items():
        questions.append((f"{kind}: {EACH[-1]} against {EACH[0]} pictures", [names[-1]], [names[0]]))
    ceilings = {kind: "authentic" if kind == "classification" else f"authentic_{kind}" for kind in each}
    for kind, names in each.items():
        questions.append((f"authentic against {EACH[-1]} synthetic pictures, {kind}", [ceilings[kind]], [names[-1]]))
    return {
        "name": "lfw_pictures",
        "title": "Do more pictures of each identity help?",
        "caption": f"280 synthetic identities, {STEPS} steps for every network; 1,000 pairs of View 1's test, people "
        "whom only the teacher may have seen, which looks at 112 pixels where the others have 32. “Authentic” learned "
        "from the photographs of the same identities.",
        "measure": "accuracy",
        "x": "synthetic pictures of each identity",
        "lines": [(kind, list(zip(EACH, names, strict=True))) for kind, names in each.items()],
        "levels": [
            ("teacher", "teacher"),
            ("comparing pixels", "pixels"),
            *((name.replace("_", " "), name) for name in ceilings.values()),
        ],
        "questions": questions,
    }


def _scores() -> dict[str, object]:
    return {
        "name": "lfw_scores",
        "title": "How alike are a person and the pictures made from them?",
        "caption": "Scores by a network that learned 86 other people. Were the pictures nobody's, the two histograms "
        "of the last panel would be one.",
        "scores": "privacy",
    }


def _relations() -> dict[str, object]:
    chart = study.relations("lfw_relations", "privacy")
    stronger = study.relations("", "privacy@teacher")["bars"]
    bars = [*chart["bars"], *((f"{label}: open network", name) for label, name in stronger)]
    caption = f"{chart['caption']} “Open network”: by MobileFaceNet, which is stronger, and learned other photographs."
    return chart | {"bars": bars, "caption": caption, "questions": ()}


def _released() -> dict[str, object]:
    title = "What do the recognisers give away?"
    caption = (
        "280 people whom the generator learned against 64 whom it did not, by how the recogniser embeds photographs of "
        "them. A network that was trained on the photographs is the control."
    )
    networks = {kind: f"privacy_networks#{kind}" for kind in study.STRATEGIES}
    networks["trained on the photographs"] = "privacy_networks#authentic"
    return study.bars("lfw_released", title, caption, "released", networks) | {"questions": ()}


def _ages(ages: tuple[int, ...]) -> list[dict[str, object]]:
    audits = study.by_age("audits/age", ages[:-1]) | {ages[-1]: "privacy"}
    networks = {
        strategy: study.by_age(f"{strategy}_age", younger) | {ages[-1]: f"{strategy}_{EACH[0]}"}
        for strategy, younger in _younger(ages).items()
    }
    different = {age: f"{audit}#different" for age, audit in audits.items()}
    # The younger sets have ten pictures of each identity.
    ten = {age: f"{audit}#{'10' if age == ages[-1] else 'all'}" for age, audit in audits.items()}

    judged = "By a network that learned 86 other people, on 10 pictures of each identity, and on 21 for the last point."
    charts = {
        "match_rate": (
            "What does a longer training of the generator give away?",
            f"{judged} 0 is drawn at 0.01 %.",
            {"same label": audits, "different labels": different},
            [("two photographs of a person", "privacy#authentic")],
        ),
        "label_rank1": (
            "How often is the person behind a synthetic picture named?",
            f"{judged} By chance 1 in 280, 0.36 %.",
            {"by one picture": audits, "by ten of a label": ten},
            [],
        ),
        "accuracy": (
            "What does a longer training of the generator bring?",
            f"280 identities, {EACH[0]} pictures of each, {STEPS} steps.",
            networks,
            [("comparing pixels", "pixels")],
        ),
    }
    return [
        {
            "name": f"lfw_{measure}",
            "title": title,
            "caption": caption,
            "measure": measure,
            "x": "thousand pictures that the generator was shown",
            "lines": [(line, list(names.items())) for line, names in lines.items()],
            "levels": levels,
        }
        for measure, (title, caption, lines, levels) in charts.items()
    ]
