"""One round: a loop, a kind of faults, and many scenes at once."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import tempfile
import traceback
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import attrs

from pyshimio.errors import ShimIOError
from pyshimio.testing._leaks import Snapshot
from support.loops import LOOPS

from . import programs
from .injector import Injector
from .scenes import SCENES, Scene
from .world import World

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Generator

GUARD = 45.0
WEATHER = ("calm", "signals", "short", "full", "poor")
"""Kinds of faults: none; calls that signals interrupt; short writes; full disks; no descriptors."""
TICK = 0.002
"""Seconds between two signals."""
AT_ONCE = (1, 8, 24)


@attrs.define(eq=False)
class Round:
    """What happens in one round; the same for the same seed and number."""

    seed: str
    number: int
    done: Counter[str]
    history: list[str] = attrs.field(factory=list[str])
    failures: list[str] = attrs.field(factory=list[str])

    def run(self) -> None:
        """Run it on its loop, and see that nothing is left."""
        rng = random.Random(f"{self.seed}-{self.number}")
        loop = tuple(LOOPS)[self.number % len(LOOPS)]
        weather = rng.choice(WEATHER)
        at_once = rng.choice(AT_ONCE)
        self.history.append(f"round {self.number} on {loop}, {weather}, {at_once} at once")
        self.done[f"rounds on {loop}"] += 1
        before = Snapshot.take()
        backend, options = LOOPS[loop]
        with tempfile.TemporaryDirectory(prefix="soak-") as directory:
            injector = Injector(
                random.Random(rng.random()),
                opening=40 if weather == "poor" else 0,
                short=150 if weather == "short" else 0,
                full=150 if weather == "full" else 0,
            )
            worlds = self._worlds(Path(directory), rng, weather, at_once)
            with injector.active(), _signals() if weather == "signals" else nullcontext():
                anyio.run(self._all, worlds, backend=backend, backend_options=options)
            self.done.update({f"fault: {name}": n for name, n in injector.done.items()})
        if left := before.left_behind(grace=5.0):
            self.failures.append(f"left behind: {', '.join(map(str, left))}")

    def _worlds(
        self, directory: Path, rng: random.Random, weather: str, at_once: int
    ) -> list[tuple[World, Scene, float | None]]:
        child, logger = programs.install(directory)
        worlds: list[tuple[World, Scene, float | None]] = []
        for number in range(at_once):
            name = rng.choice(tuple(SCENES))
            where = directory / f"{number}"
            where.mkdir()
            world = World(
                f"{self.number}.{number}-{name}",
                where,
                child,
                logger,
                random.Random(rng.random()),
                self.done,
                exact=weather != "poor",
                lines=weather == "full" and name in {"files", "consoles"},
            )
            cut = rng.uniform(0, 0.5) if rng.random() < 0.2 else None
            worlds.append((world, SCENES[name], cut))
        return worlds

    async def _all(self, worlds: list[tuple[World, Scene, float | None]]) -> None:
        async with anyio.create_task_group() as group:
            for world, scene, cut in worlds:
                group.start_soon(self._one, world, scene, cut)

    async def _one(self, world: World, scene: Scene, cut: float | None) -> None:
        name = scene.__name__
        try:
            with anyio.fail_after(GUARD):
                if cut is None:
                    await scene(world)
                    self.done[name] += 1
                else:
                    await self._cut(scene, world, cut)
        except BaseException as error:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise
            if world.exact or not _refused(error):
                trace = "".join(traceback.format_exception(error))
                self.failures.append(f"{world.name}: {error!r}\n{trace}")
            else:
                self.done[f"{name} refused"] += 1
        finally:
            shutil.rmtree(world.directory, ignore_errors=True)
            said = "" if cut is None else f", cut off after {cut:.3f} s"
            self.history.append(f"{world.name}: {world.choices}{said}")

    async def _cut(self, scene: Scene, world: World, cut: float) -> None:
        """Cancel the scene after a while, in one of the two ways that there are."""
        native = world.choose("cancelled", "scope", "native") == "native"
        if native and tuple(LOOPS)[self.number % len(LOOPS)] != "trio":
            task = asyncio.ensure_future(_as_coroutine(lambda: scene(world)))
            await asyncio.wait([task], timeout=cut)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        else:
            with anyio.move_on_after(cut):
                await scene(world)
        self.done[f"{scene.__name__} cut off"] += 1


@contextmanager
def _signals() -> Generator[None]:
    """Every call may be interrupted (EINTR), for real."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def _as_coroutine(call: Callable[[], object]) -> None:
    await call()  # type: ignore[misc]


def _refused(error: BaseException) -> bool:
    """Whether an injected fault explains it."""
    if isinstance(error, BaseExceptionGroup):
        return all(_refused(one) for one in error.exceptions)
    refusals = (ShimIOError, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)
    return isinstance(error, refusals) and not isinstance(error, TimeoutError)
