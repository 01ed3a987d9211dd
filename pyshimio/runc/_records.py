"""What a runtime answers."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from ..errors import RuntimeAnswerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ("ContainerState", "LogEntry", "RuntimeEvent", "RuntimeVersion", "decode", "log_entries")

T = TypeVar("T")


@attrs.frozen
class LogEntry:
    """One line of a runtime's JSON log."""

    level: str
    message: str
    time: str


@attrs.frozen
class ContainerState:
    """What ``state`` and ``list`` say of a container."""

    id: str
    status: str
    """``creating``, ``created``, ``running``, ``paused`` or ``stopped``."""
    pid: int
    """Of its init; 0 when that has ended."""
    bundle: str
    rootfs: str = ""
    created: datetime | None = None
    owner: str = ""
    annotations: Mapping[str, str] = attrs.field(factory=dict[str, str])

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> ContainerState:
        """From the runtime's JSON."""
        created = answer.get("created")
        return cls(
            id=answer["id"],
            status=answer["status"],
            pid=answer.get("pid", 0),
            bundle=answer.get("bundle", ""),
            rootfs=answer.get("rootfs", ""),
            created=_moment(created) if created else None,
            owner=answer.get("owner", ""),
            annotations=answer.get("annotations") or {},
        )


@attrs.frozen
class RuntimeEvent:
    """One line of ``events``: ``kind`` is ``stats`` or ``oom``, ``data`` is the runtime's."""

    kind: str
    id: str
    data: Mapping[str, Any]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> RuntimeEvent:
        """From the runtime's JSON."""
        return cls(kind=answer["type"], id=answer["id"], data=answer.get("data") or {})


@attrs.frozen
class RuntimeVersion:
    """What ``--version`` says."""

    program: str
    version: str
    commit: str = ""
    spec: str = ""

    @classmethod
    def of(cls, text: str) -> RuntimeVersion:
        """From the lines that runc and crun print."""
        first, *rest = text.splitlines() or [""]
        program, _, version = first.partition(" version ")
        facts = {name: value for name, _, value in (line.partition(": ") for line in rest)}
        return cls(
            program=program,
            version=version,
            commit=facts.get("commit", ""),
            spec=facts.get("spec", ""),
        )


def decode(args: tuple[str, ...], text: bytes, make: Callable[[Any], T]) -> T:
    """What *make* makes of the JSON that a command has printed.

    Raises:
        RuntimeAnswerError: It is none, or not what *make* takes.
    """
    try:
        return make(json.loads(text))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RuntimeAnswerError(
            f"{' '.join(args)!r} answered with {text[:64]!r}, which cannot be read: {error!r}",
            args_=args,
            answer=text,
        ) from error


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def log_entries(text: bytes, form: str) -> tuple[LogEntry, ...]:
    """The entries of a log; what is none (a cut line) is left out.

    As text, a line is runc's (``time=... level=... msg=...``), or else crun's, which logs errors.
    """
    found: list[LogEntry] = []
    for line in text.decode(errors="replace").splitlines():
        try:
            entry = json.loads(line) if form == "json" else _facts(line)
            found.append(LogEntry(entry.get("level", ""), entry["msg"], entry.get("time", "")))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return tuple(found)


def _facts(line: str) -> dict[str, str]:
    facts = dict(word.split("=", 1) for word in shlex.split(line) if "=" in word)
    return facts if "msg" in facts else {"level": "error", "msg": line}
