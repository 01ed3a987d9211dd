"""What a driver is told of the container whose log it keeps."""

from __future__ import annotations

from ..errors import LogOptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

__all__ = ("LogInfo",)

SHORT = 12
"""Characters of an id that people are shown."""
SELECTORS = ("labels", "labels-regex", "env", "env-regex", "tag")


class LogInfo:
    """The container, and the options that its log driver was given (moby's ``logger.Info``).

    Args:
        id: The container's.
        namespace: Where it is called so.
        options: The driver's, by name.
        name: What people call it; moby's leading ``/`` is no part of it.
        image_id, image_name: What it was made of.
        command: Its entrypoint and arguments.
        labels: From which ``labels`` and ``labels-regex`` choose.
        env: ``NAME=VALUE`` of its environment, from which ``env`` and ``env-regex`` choose.
        daemon: Who runs it.
    """

    __slots__ = (
        *("command", "daemon", "env", "id", "image_id", "image_name", "labels", "name"),
        *("namespace", "options"),
    )

    def __init__(
        self,
        id: str,  # noqa: A002 - containerd's word
        *,
        namespace: str = "",
        options: Mapping[str, str] | None = None,
        name: str = "",
        image_id: str = "",
        image_name: str = "",
        command: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        env: Sequence[str] = (),
        daemon: str = "",
    ) -> None:
        self.id: Final[str] = id
        self.namespace: Final[str] = namespace
        self.options: Final[Mapping[str, str]] = dict(options or {})
        self.name: Final[str] = name.removeprefix("/")
        self.image_id: Final[str] = image_id
        self.image_name: Final[str] = image_name
        self.command: Final[tuple[str, ...]] = tuple(command)
        self.labels: Final[Mapping[str, str]] = dict(labels or {})
        self.env: Final[tuple[str, ...]] = tuple(env)
        self.daemon: Final[str] = daemon

    def evolve(self, options: Mapping[str, str]) -> LogInfo:
        """The same container with other options."""
        return LogInfo(
            self.id,
            namespace=self.namespace,
            options=options,
            name=self.name,
            image_id=self.image_id,
            image_name=self.image_name,
            command=self.command,
            labels=self.labels,
            env=self.env,
            daemon=self.daemon,
        )

    @property
    def short_id(self) -> str:
        """As people are shown it."""
        return self.id[:SHORT]

    def attributes(self) -> dict[str, str]:
        """What goes with each record, chosen by the options as moby does it.

        ``labels`` and ``env`` name keys, ``labels-regex`` and ``env-regex`` are looked for
        anywhere in one; the environment wins over a label of the same name, and ``tag``, a
        template, over both.

        Raises:
            LogOptionError: A pattern or a template is none.
        """
        options = self.options
        found = _chosen(self.labels, options, "labels")
        pairs = (entry.partition("=") for entry in self.env)
        env = {name: value for name, equals, value in pairs if equals}
        found.update(_chosen(env, options, "env"))
        if tag := self.expand(options.get("tag", "")):
            found["tag"] = tag
        return found

    def expand(self, template: str) -> str:
        """A tag: the text with moby's ``{{.ID}}`` and its like replaced.

        ``ID``, ``FullID``, ``Name``, ``ImageID``, ``ImageFullID``, ``ImageName``, ``Command``,
        ``Hostname`` and ``DaemonName``; ``Namespace`` is containerd's.

        Raises:
            LogOptionError: There is no such variable.
        """
        done: list[str] = []
        rest = template
        while True:
            before, opened, behind = rest.partition("{{")
            done.append(before)
            if not opened:
                return "".join(done)
            inside, closed, rest = behind.partition("}}")
            name = inside.strip()
            if not closed or name not in VARIABLES:
                known = ", ".join("{{" + known + "}}" for known in VARIABLES)
                raise LogOptionError(
                    f"tag is text with {known} in it, and {template!r} has {'{{' + inside!r}",
                    option="tag",
                )
            done.append(VARIABLES[name](self))

    def __repr__(self) -> str:
        return f"<LogInfo {self.namespace}/{self.id} {dict(self.options)}>"


def _hostname(_info: LogInfo) -> str:
    with open("/proc/sys/kernel/hostname", encoding="utf-8") as file:
        return file.read().rstrip("\n")


VARIABLES: Mapping[str, Callable[[LogInfo], str]] = {
    ".ID": lambda info: info.short_id,
    ".FullID": lambda info: info.id,
    ".Name": lambda info: info.name,
    ".Namespace": lambda info: info.namespace,
    ".ImageID": lambda info: info.image_id[:SHORT],
    ".ImageFullID": lambda info: info.image_id,
    ".ImageName": lambda info: info.image_name,
    ".Command": lambda info: " ".join(info.command),
    ".Hostname": _hostname,
    ".DaemonName": lambda info: info.daemon,
}


def _chosen(values: Mapping[str, str], options: Mapping[str, str], option: str) -> dict[str, str]:
    names = options.get(option, "").split(",")
    found = {name: values[name] for name in names if name in values}
    if pattern := options.get(f"{option}-regex"):
        search = _pattern(f"{option}-regex", pattern).search
        found.update((name, value) for name, value in values.items() if search(name))
    return found


def _pattern(option: str, pattern: str) -> re.Pattern[str]:
    import re  # noqa: PLC0415 - a third of a logger's start, and few ask for it

    try:
        return re.compile(pattern)
    except re.error as error:
        raise LogOptionError(
            f"{option} is a regular expression, not {pattern!r}: {error}", option=option
        ) from error
