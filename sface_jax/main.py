"""python -m sface_jax.main --config=configs/<file>.py[:variant] --workdir=DIR [--config.key=value ...]"""

from __future__ import annotations

import atexit
import difflib
import functools
import importlib
import logging as standard
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from sface_jax.core.errors import ASKED, LOST, MISTAKEN, STOPPED, Interrupted, Lost, UserError

# What each kind of stage runs, in the order of the pipeline: `run(config, workdir) -> result`.
STAGES = {
    "prepare": "sface_jax.data.prepare",
    "gan": "sface_jax.gan.train",
    "convert": "sface_jax.convert.convert",
    "synthesize": "sface_jax.synthesis.generate",
    "recognition": "sface_jax.recognition.train",
    "verify": "sface_jax.verification.evaluate",
    "doctor": "sface_jax.verification.doctor",
    "privacy": "sface_jax.privacy.audit",
    "overlap": "sface_jax.privacy.overlap.stage",
    "planted": "sface_jax.privacy.planted",
    "frontier": "sface_jax.report.frontier",
    "study": "sface_jax.report.study",
    "export": "sface_jax.data.export",
    "report": "sface_jax.report.report",
    "benchmark": "sface_jax.gan.benchmark",
    "benchmark_recognition": "sface_jax.recognition.benchmark",
    "benchmark_loader": "sface_jax.data.benchmark",
    "benchmark_verification": "sface_jax.verification.benchmark",
    "benchmark_matching": "sface_jax.privacy.benchmark",
    "preflight": "sface_jax.core.preflight",
    "compile": "sface_jax.gan.compile",
    "compile_synthesis": "sface_jax.synthesis.compile",
    "compile_recognition": "sface_jax.recognition.compile",
    "compile_embedding": "sface_jax.recognition.compile_embedding",
    "compile_matching": "sface_jax.privacy.compile",
    "compile_paper": "sface_jax.report.compiled_paper",
    "compile_scaling": "sface_jax.report.compiled_scaling",
}

# What opens networks from anywhere is handed to the stages that want it: of the packages only `convert` reads PyTorch.
GIVEN = {
    "gan": {"open_embedder": "sface_jax.convert.embedders"},
    "synthesize": {"open_embedder": "sface_jax.convert.embedders"},
    "recognition": {"open_network": "sface_jax.convert.recognizers", "open_judge": "sface_jax.verification.during"},
    "verify": {"open_network": "sface_jax.convert.recognizers", "write_page": "sface_jax.report.verification"},
    "doctor": {"open_network": "sface_jax.convert.recognizers"},
    "privacy": {
        "open_network": "sface_jax.convert.recognizers",
        "open_discriminator": "sface_jax.gan.scoring",
        "write_page": "sface_jax.report.privacy",
    },
    "overlap": {"open_network": "sface_jax.convert.recognizers"},
    "planted": {"open_network": "sface_jax.convert.recognizers"},
}

# Stages that only look at what others made: run anew with another config. Some take seconds, with embeddings kept, and
# what they look at may have changed since.
ALWAYS = (
    *("verify", "privacy", "planted", "frontier", "study", "doctor", "report"),
    *("compile", "compile_synthesis", "compile_recognition", "compile_embedding", "compile_matching"),
    *("compile_paper", "compile_scaling"),
    *("benchmark", "benchmark_recognition", "benchmark_loader", "benchmark_verification", "benchmark_matching"),
)
AGAIN = {"overlap": "changed"} | dict.fromkeys(ALWAYS, "always")

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The config file, e.g. configs/quickstart.py", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run keeps everything; by default runs/<config's name>")
_WATCHDOG = flags.DEFINE_float(
    "watchdog",
    None,
    "Seconds in which something must move, or else the run ends with status 75, to be started again; 0 for ever. "
    "By default 1800 where several processes run, else 0",
    lower_bound=0.0,
)


def main(argv: list[str]) -> None:
    """Runs the stage of the config, or each of its `stages` in turn."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}: flags look like --workdir=DIR and --config.key=value")
    if _CONFIG.value is None:
        raise UserError("no config: give one, e.g. --config=configs/quickstart.py")
    stages = list(_stages(_CONFIG.value))
    for _, config in stages:
        if config.stage not in STAGES:
            raise UserError(f"there is no stage {config.stage!r}{_nearest(config.stage, STAGES)}")

    import jax
    from etils import epath

    from sface_jax.core import cluster, endings, files, logs, mesh, stage, watchdog

    endings.handle()
    cluster.join()
    endings.follow()
    if not mesh.is_lead():
        logging.get_absl_handler().setLevel(standard.WARNING)
    file, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    name = Path(file).stem + (f"-{variant}" if variant else "")
    workdir = epath.Path(_WORKDIR.value or Path("runs") / name)
    files.check_store(workdir)
    logs.to_file(workdir)
    logging.info("workdir %s, %s x %s", workdir, jax.device_count(), jax.devices()[0].device_kind)
    limit = 1800.0 if jax.process_count() > 1 else 0.0
    watchdog.start(limit if _WATCHDOG.value is None else _WATCHDOG.value, workdir / "logs")
    for key, config in stages:
        watchdog.beat(key)
        run = importlib.import_module(STAGES[config.stage]).run
        for function, module in GIVEN.get(config.stage, {}).items():
            run = functools.partial(run, **{function: _late(module, function)})
        if config.stage == "preflight":  # before anybody waits for anybody
            run(config, workdir)
            continue
        again = config.get("again", AGAIN.get(config.stage, "never"))
        stage.run(key, config, workdir, run, again=again)
    logs.tell_summary(workdir, [key for key, _ in stages])
    watchdog.stop()
    endings.part()


def _late(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported when it is called."""
    return lambda *args, **options: getattr(importlib.import_module(module), name)(*args, **options)


def _stages(config: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    """Yields (name, flat config) of each stage that the config asks for."""
    if "stages" in config:
        for key in config.stages:
            if key not in config:
                raise UserError(
                    f"config.stages names {key!r}, which the config does not describe{_nearest(key, config.keys())}"
                )
            yield key, config[key]
    else:
        yield config.get("name", config.stage), config


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f": did you mean {close[0]!r}?" if close else ""


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a mistake in it ends the program with one line."""
    for argument, following in zip(argv[1:], [*argv[2:], ""], strict=False):
        flag, given, value = argument.lstrip("-").partition("=")
        if flag == "config" and argument.startswith("-"):
            file = (value if given else following).partition(":")[0]
            if not Path(file).is_file() or Path(file).suffix != ".py":
                _fail(f"no config file {file!r}: the ones at hand are in configs/")
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(str(error).strip().splitlines()[-1].removeprefix("ValueError: "))
    except (AttributeError, KeyError) as error:
        told = str(error)
        key = re.search(r"\w+", told)
        nearest = re.search(r"Did you mean \W*(\w+)", told)
        hint = f": did you mean {nearest[1]!r}?" if nearest else ""
        _fail(f"the config has no key {key[0]!r}{hint}" if key else told)
    except (TypeError, ValueError, ImportError, SyntaxError) as error:
        _fail(" ".join(str(error).split()))


def _fail(line: str) -> None:
    _end(f"error: {line}", MISTAKEN)


def _end(line: str, status: int) -> None:
    """Ends the program, and the other processes of the run, with a line and an exit status."""
    if "jax" in sys.modules:
        from sface_jax.core import endings

        endings.end(line, status)
    print(line, file=sys.stderr, flush=True)
    sys.exit(status)


def _run(argv: list[str]) -> None:
    try:
        main(argv)
    except UserError as error:
        _fail(str(error))
    except Lost as error:
        _end(f"lost: {error}", LOST)
    except Interrupted as error:
        _end(str(error), ASKED)
    except KeyboardInterrupt:
        _end("interrupted; run the same command to go on", STOPPED)
    except Exception as error:
        _failed(error)


def _failed(error: Exception) -> None:
    """Tells what a library found wrong, as far as a person can do something about it."""
    if "jax" not in sys.modules:
        raise error
    from sface_jax.core import endings

    if what := endings.what_is_lost(error):
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        _end(f"lost {what} ({said}); run the same command to go on", LOST)
    if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        _fail("out of memory: lower the batch_size of the stage, or run it on more devices")
    if endings.is_lost(error):
        endings.end("", LOST)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        _fail(f"{error.filename}: {error.strerror}; check the path and its permissions")
    if endings.is_distributed():
        traceback.print_exc()
        endings.end(f"{type(error).__name__}: {error}", 1)
    raise error


class _Line(logging.PythonFormatter):
    """A log line as a person reads it: the message, after "warning:" or "error:" where it is one."""

    def format(self, record: Any) -> str:
        """Formats the record."""
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.converter.STANDARD_WARNING else ""
        return prefix + record.getMessage()


def _ours(record: Any) -> bool:
    """Keeps what this package tells, and of the libraries only what is wrong.

    What Orbax cannot write or read it both logs, thread by thread, and raises.
    """
    if "/orbax/" in record.pathname:
        return False
    package = str(Path(__file__).parent)
    return record.pathname.startswith(package) or record.levelno >= logging.converter.STANDARD_ERROR


def entry() -> None:
    """The console entry point."""
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(_Line())
    logging.get_absl_handler().addFilter(_ours)
    logging.set_verbosity(logging.INFO)
    try:
        app.run(_run, flags_parser=_parse_flags)
    except SystemExit as ended:
        if "jax" not in sys.modules or not isinstance(ended.code, int | None):
            raise
        # Python takes itself down while threads of libraries are still about, and some of them abort the process then.
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code or 0)


if __name__ == "__main__":
    entry()
