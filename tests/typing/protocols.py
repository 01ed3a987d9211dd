"""Checked by the type checkers and never run: what claims a protocol satisfies it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyshimio import (
        BinaryIO,
        ConsoleIO,
        FdIO,
        FileIO,
        InheritIO,
        NullIO,
        PipeIO,
    )
    from pyshimio._file import FileSink
    from pyshimio._ring import RingSink
    from pyshimio._sink import DescriptorSink, NullSink, PipeSink
    from pyshimio.abc import IO, Sink
    from pyshimio.io._console import TerminalSink
    from pyshimio.io.fd import BlockingSink


def ios(
    *,
    pipe: PipeIO,
    null: NullIO,
    inherit: InheritIO,
    file: FileIO,
    fd: FdIO,
    binary: BinaryIO,
    console: ConsoleIO,
) -> list[IO]:
    """Every IO type is an IO."""
    return [pipe, null, inherit, file, fd, binary, console]


def sinks(
    *,
    pipe: PipeSink,
    descriptor: DescriptorSink,
    null: NullSink,
    file: FileSink,
    ring: RingSink,
    blocking: BlockingSink,
    terminal: TerminalSink,
) -> list[Sink]:
    """Every sink type is a Sink."""
    return [pipe, descriptor, null, file, ring, blocking, terminal]
