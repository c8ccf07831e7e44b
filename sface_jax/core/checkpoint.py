"""Orbax checkpoints of a train state: everything that a run needs to go on, in one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from sface_jax.core import digest, endings, files, mesh
from sface_jax.core.errors import Unfinished, UserError
from sface_jax.core.files import PathLike

DIGESTS = "digests"
"""The item of a checkpoint that tells, for each array, what its bits sum up to: storage may lose or alter some."""


class Checkpoints:
    """The checkpoints in a folder: saved in the background, restored onto the shardings of the target."""

    def __init__(self, directory: PathLike, keep: int = 2, read_only: bool = False):
        """Opens (and, but for reading only, makes) the folder.

        Args:
            directory: where the steps are kept, one folder each.
            read_only: change nothing in the folder, which another run may be writing to.
            keep: how many of the newest to keep; two, so that one that is cut short has a forerunner.
        """
        self.directory = files.absolute(directory)
        self.read_only = read_only
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            create=not read_only,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
        )
        handlers = {"state": ocp.PyTreeCheckpointHandler(), DIGESTS: ocp.JsonCheckpointHandler()}
        self.manager = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)
        # Each process reads by itself: where one cannot, the others must not wait for it in the middle of Orbax.
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
        )
        self._reader = ocp.Checkpointer(
            ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone
        )

    def latest_step(self) -> int | None:
        """Returns the newest step saved, or None."""
        return self.manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Saves a tree of arrays as `step`; returns when `state` may be overwritten.

        Raises:
            Unfinished: a number of it is not finite, or no space is left.
        """
        told = digest.of(state)
        if bad := [name for name, of in told.items() if not of.finite]:
            last = self.latest_step()
            kept = "nothing was saved before" if last is None else f"the last checkpoint is step {last}"
            raise Unfinished(
                f"{bad[0]} is not finite at step {step}, which is not saved; {kept}: begin anew in another --workdir "
                "with a lower learning_rate or a longer warm-up"
            )
        with self._full_disk_told():
            digests = ocp.args.JsonSave({name: of.bits for name, of in told.items()})
            self.manager.save(step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), **{DIGESTS: digests}))
            if jax.default_backend() == "cpu":
                # The host copy of a CPU array is the array itself: a donated buffer must not change under the writer.
                self.manager.wait_until_finished()

    def drop_from(self, step: int) -> None:
        """Deletes the checkpoints of `step` and later ones: a manager would not save before them."""
        for saved in self.manager.all_steps():
            if saved >= step:
                self.manager.delete(saved)

    def restore(self, target: Any, padded: str = "") -> Any | None:
        """Restores the newest readable checkpoint onto the shapes, types and shardings of a target.

        Where one cannot be read, the log says so and the one before it is taken; the unreadable one is then set aside
        as `broken-<step>`.

        Args:
            target: a tree of arrays or `jax.ShapeDtypeStruct`s with the shapes, types and shardings wanted.
            padded: arrays under this name may have been saved with another number of rows: rows that the target has
                more become zero, rows of zeros that it has less are dropped. For a matrix padded to suit a number of
                devices.

        Returns:
            The tree, or None where nothing was ever saved.

        Raises:
            UserError: checkpoints exist, but none of them can be read.
        """
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        return self._newest(lambda step: shapes, padded=padded, together=True)

    def read(self, parts: Sequence[str] = (), step: int | None = None) -> Any | None:
        """Reads the newest readable checkpoint as nested dicts of arrays on the first device; see `restore`.

        Args:
            parts: what to read of the tree, such as "params/backbone"; nothing else is fetched. All of it where empty.
            step: read the checkpoint of this step, and no other.
        """
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def abstract(step: int) -> Any:
            tree = self.manager.item_metadata(step)["state"].tree
            if parts:
                leaves = flatten_dict(tree, sep="/").items()
                tree = unflatten_dict({k: leaf for k, leaf in leaves if f"{k}/".startswith(prefixes)}, sep="/")
            return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

        prefixes = tuple(f"{part}/" for part in parts)
        return self._newest(abstract, partial=bool(parts), steps=None if step is None else [step])

    def _newest(
        self,
        abstract: Callable[[int], Any],
        partial: bool = False,
        padded: str = "",
        together: bool = False,
        steps: Sequence[int] | None = None,
    ) -> Any | None:
        def how(path: tuple[Any, ...], leaf: ocp.ArrayRestoreArgs) -> ocp.ArrayRestoreArgs:
            """An array that may be padded is read into the target's shape, whatever its own is."""
            return dataclasses.replace(leaf, strict=False) if padded in digest.name(path).split("/") else leaf

        broken: list[int] = []
        for step in self._candidates(together) if steps is None else steps:
            state, wrong = None, ""
            try:
                target = abstract(step)
                wanted = jax.tree_util.tree_map_with_path(how, ocp.checkpoint_utils.construct_restore_args(target))
                args = ocp.args.PyTreeRestore(target, restore_args=wanted, partial_restore=partial)
                state = self._reader.restore(self.directory / str(step) / "state", args=args)
                kept = self._kept_digests(step)
            except Exception as error:
                if _is_elsewhere(error):
                    raise
                wrong = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            if together and not mesh.agreed(not wrong):
                wrong = wrong or "by another process"
            if not wrong:
                altered = [name for name, of in digest.of(state).items() if of.bits != kept.get(name, of.bits)]
                wrong = f"{altered[0]} is not what was saved" if altered else ""
            if wrong:
                logging.warning(
                    "checkpoint %s in %s cannot be read (%s): trying the one before", step, self.directory, wrong
                )
                broken.append(step)
                continue
            if broken and not self.read_only:
                self._set_aside(broken)
            return state
        if broken:
            raise UserError(
                f"no checkpoint in {self.directory} can be read: restore it, or delete the folder and train anew"
            )
        return None

    def _candidates(self, together: bool) -> Iterator[int]:
        """The steps saved, newest first; those that the lead sees where all processes take the same one."""
        own = sorted(self.manager.all_steps(), reverse=True)
        if not together:
            yield from own
            return
        for place in range(int(mesh.as_lead_has_it(len(own)))):
            yield int(mesh.as_lead_has_it(own[place] if place < len(own) else 0))

    def _kept_digests(self, step: int) -> dict[str, int]:
        """What was told of the arrays as they were saved; nothing in checkpoints of old."""
        path = self.directory / str(step) / DIGESTS / "metadata"  # as Orbax calls the file
        return files.read_json(path) if path.exists() else {}

    def _set_aside(self, steps: list[int]) -> None:
        if mesh.is_lead():
            for step in steps:
                target = self.directory / f"broken-{step}"
                if target.exists():
                    target.rmtree()
                (self.directory / str(step)).rename(target)
        mesh.barrier("checkpoints set aside")
        self.manager.reload()

    def close(self) -> None:
        """Waits for writes in the background and closes the folder."""
        with contextlib.ExitStack() as closing:
            closing.enter_context(self._full_disk_told())
            closing.callback(self._reader.close)
            closing.callback(self.manager.close)
            self.manager.wait_until_finished()

    def _full_disk_told(self) -> contextlib.AbstractContextManager[None]:
        return files.full_disk_told(f"a checkpoint in {self.directory}")


def _is_elsewhere(error: Exception) -> bool:
    """Whether an error says nothing of the checkpoint that was to be read."""
    kinds = PermissionError | MemoryError | jax.errors.JaxRuntimeError
    if any(isinstance(one, kinds) for one in endings.led_to(error)):
        return True
    return endings.is_lost(error) or bool(endings.what_is_lost(error))
