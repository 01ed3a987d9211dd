"""The scenes: each the whole life of one child, ended by looking for every byte."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio

from pyshimio import (
    BytesAbandoned,
    PipeIO,
    Stdio,
    StdioURI,
    create_io,
)
from pyshimio.errors import StreamFailedError

from .fifo_clients import Reader, type_into
from .records import joined, kept, stream
from .world import OUTPUTS, World, check

LINGER = 30.0
"""For ends that are to come; longer than any machine is stuck."""

Scene = Callable[[World], Awaitable[None]]


async def files(world: World) -> None:
    """Two files that are rotated while they are written."""
    rng = world.rng
    args, status = world.plan()
    paths = {name: world.path(name) for name in OUTPUTS}
    rotations = int(world.choose("rotations", 0, 0, 1, 5))
    io = await create_io(
        Stdio(
            stdout=StdioURI.build("file", paths["stdout"]),
            stderr=StdioURI.build("file", paths["stderr"]),
        ),
        inline=bool(world.choose("inline", True, False)) and not world.lines,
    )

    async def rotate() -> None:
        for number in range(rotations):
            await anyio.sleep(rng.uniform(0, 0.1))
            for path in paths.values():
                with suppress(FileNotFoundError):  # not made anew, since its stream has ended
                    os.rename(path, f"{path}.{number}")
            await io.reopen()
            world.done["rotations"] += 1

    try:
        async with io:
            process = await io.spawn(args)
            async with anyio.create_task_group() as group:
                group.start_soon(rotate)
                check(await process.wait() == status, "status")
            result = await io.drain(linger=LINGER, sink_timeout=LINGER)
    finally:
        parts = {name: _rotated(path, rotations) for name, path in paths.items()}
        if world.lines:  # a line that was cut in one file is not gone on with in the next
            got = {name: joined(world.marks[name], parts[name]) for name in OUTPUTS}
        else:
            got = {name: b"".join(parts[name]) for name in OUTPUTS}
        for name in OUTPUTS:
            world.in_order(name, got[name])
    for name in OUTPUTS:
        found = getattr(result, name)
        world.account(name, got[name], found.dropped)
        check(found.moved + found.dropped == len(world.wholes[name]), f"{name}: {found}")
        check(found.finished, f"{name}: {found}")


def _rotated(path: str, rotations: int) -> list[bytes]:
    parts = [Path(f"{path}.{number}") for number in range(rotations)]
    return [part.read_bytes() for part in (*parts, Path(path)) if part.exists()]


async def fifos(world: World) -> None:
    """Two FIFOs with clients that come, stall, go and come again."""
    await _fifos(world, ring=None, faithful=True)


async def rings(world: World) -> None:
    """FIFOs whose child goes on without a client, which may stay away for good."""
    world.lines = True
    ring = int(world.choose("ring", 1 << 12, 1 << 16, 1 << 20))
    await _fifos(world, ring=ring, faithful=bool(world.choose("faithful", True, False)))


async def _fifos(world: World, *, ring: int | None, faithful: bool) -> None:
    args, status = world.plan()
    readers: dict[str, Reader] = {}
    for name in OUTPUTS:
        os.mkfifo(world.path(name))
        seed = random.Random(world.rng.random())
        readers[name] = Reader(world.path(name), seed, faithful=faithful)
    async with anyio.create_task_group() as group:
        for reader in readers.values():
            group.start_soon(reader.run)
        try:
            io = await create_io(
                Stdio(stdout=world.path("stdout"), stderr=world.path("stderr")),
                ring=ring,
                client_timeout=LINGER,
            )
            events = io.events()
            async with io:
                process = await io.spawn(args)
                check(await process.wait() == status, "status")
                patience = LINGER if faithful else 0.3
                result = await io.drain(linger=LINGER, sink_timeout=patience)
        finally:
            for reader in readers.values():
                reader.over.set()
    abandoned = dict.fromkeys(OUTPUTS, 0)
    async for event in events:
        if isinstance(event, BytesAbandoned):
            abandoned[event.stream] += event.count
    for name, reader in readers.items():
        stats = getattr(io.stats, name)
        world.account(name, bytes(reader.got), stats.dropped, abandoned=abandoned[name])
        world.done["client visits"] += reader.visits
        world.done["bytes abandoned"] += abandoned[name]
        if faithful:
            check(getattr(result, name).finished, f"{name}: {result}")


async def loggers(world: World) -> None:
    """A logger that may stall, or die and be started again."""
    handover = bool(world.choose("handover", True, False))
    policy = world.choose("policy", "epipe", "drain", "respawn")
    mortal = bool(world.choose("mortal", True, False))
    args, status = world.plan(most=10_000)
    size = sum(map(len, world.wholes.values()))
    life = world.rng.randrange(size // 4 + 1, size + 2) if mortal else 1 << 40
    where = world.path("log")
    os.mkdir(where)
    uri = StdioURI.build(
        "binary",
        world.logger,
        [("where", where), ("life", str(life)), ("stall", str(world.choose("stall", 0, 0, 0.3)))],
    )
    failed, code = False, -1
    io = await create_io(
        Stdio(stdout=uri, stderr=uri),
        id=world.name,
        namespace="soak",
        on_death=policy,
        handover=handover,
        max_restarts=100,
    )
    try:
        async with io:
            process = await io.spawn(args)
            code = await process.wait()
            await io.drain(linger=LINGER, sink_timeout=LINGER)
    except StreamFailedError:
        failed = True
    found = {
        name: b"".join(part.read_bytes() for part in sorted(Path(where).glob(f"{name}-*")))
        for name in OUTPUTS
    }
    world.done["loggers"] += len(list(Path(where).glob("stdout-*")))
    if mortal and policy == "epipe":
        for name in OUTPUTS:
            world.in_order(name, found[name])
        return
    check(not failed or not world.exact, "a stream failed")
    check(code == status or not world.exact, f"status {code}, not {status}")
    for name in OUTPUTS:
        stats = getattr(io.stats, name)
        world.account(name, found[name], 0 if stats is None else stats.dropped)


async def consoles(world: World) -> None:
    """A terminal of its own, resized meanwhile, its screen in a file."""
    args, status = world.plan(("stdout",), background=False)
    path = world.path("screen")
    io = await create_io(
        Stdio(stdout=StdioURI.build("file", path), terminal=True), runtime=False, size=(24, 80)
    )
    async with io:
        process = await io.spawn(args)
        console = getattr(io, "console", None)
        for _ in range(int(world.choose("resizes", 0, 1, 20))):
            if console is None or console.closed:
                break
            console.resize(world.rng.randrange(1, 200), world.rng.randrange(1, 200))
            world.done["resizes"] += 1
            await anyio.sleep(0.002)
        check(await process.wait() == status, "status")
        result = await io.drain(linger=LINGER, sink_timeout=LINGER)
    check(result.stdout is not None, "no result")
    got = Path(path).read_bytes().replace(b"\r\n", b"\n")
    if world.lines:  # what is dropped are the terminal's lines, which are longer
        got = got.removesuffix(b"\r")  # its newline, and all that came later, found no room
        kept(world.marks["stdout"], got)
    else:
        world.account("stdout", got, 0)


async def echoes(world: World) -> None:
    """What is sent to stdin comes back, through pipes or FIFOs."""
    mark = world.marks["stdout"] = world.rng.getrandbits(32)
    whole = world.wholes["stdout"] = stream(mark, world.choose("records", 1, 100, 20_000))
    world.done["bytes"] += len(whole)
    args = [*world.child, repr([("echo",)])]
    if world.choose("through", "pipes", "fifos") == "fifos":
        await _echo_through_fifos(world, args, whole)
        return
    got = bytearray()
    async with PipeIO() as io:
        process = await io.spawn(args)

        async def send() -> None:
            data = whole
            assert io.stdin is not None
            while data:
                count = world.rng.choice((1, 1000, 100_000))
                await io.stdin.send(data[:count])
                data = data[count:]
            io.close_stdin()

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            assert io.stdout is not None
            with suppress(anyio.EndOfStream):
                while True:
                    got += await io.stdout.receive()
        check(await process.wait() == 0, "status")
    world.account("stdout", bytes(got), 0)


async def _echo_through_fifos(world: World, args: list[str], whole: bytes) -> None:
    for name in ("stdin", "stdout"):
        os.mkfifo(world.path(name))
    reader = Reader(world.path("stdout"), random.Random(world.rng.random()))
    async with anyio.create_task_group() as group:
        group.start_soon(reader.run)
        try:
            io = await create_io(Stdio(stdin=world.path("stdin"), stdout=world.path("stdout")))
            async with io:
                process = await io.spawn(args)
                await type_into(world, world.path("stdin"), whole)
                io.close_stdin()
                check(await process.wait() == 0, "status")
                await io.drain(linger=LINGER, sink_timeout=LINGER)
        finally:
            reader.over.set()
    world.account("stdout", bytes(reader.got), 0)


SCENES: dict[str, Scene] = {
    scene.__name__: scene for scene in (files, fifos, rings, loggers, consoles, echoes)
}
