"""Where kubelet looks for container logs, and the links that others look for.

A container's log is ``/var/log/pods/<namespace>_<pod>_<uid>/<container>/<restart>.log``.  Agents
of old look for ``/var/log/containers/<pod>_<namespace>_<container>-<id>.log``, a link to it.  Under
docker that log is a link itself, to the json-file, and a label of the container has its path.
"""

from __future__ import annotations

import os
from contextlib import suppress

import attrs

from ..errors import InvalidOptionError
from . import _kernel

__all__ = (
    "CONTAINERS",
    "LOG_PATH_LABEL",
    "PODS",
    "LinkName",
    "PodLog",
    "label_link",
    "link",
)

PODS = "/var/log/pods"
CONTAINERS = "/var/log/containers"
LOG_PATH_LABEL = "io.kubernetes.container.logpath"
SUFFIX = ".log"
LONGEST = 255 - len(SUFFIX)
"""Bytes of a link's name without its suffix: what a file system takes."""


def _name(_record: object, field: attrs.Attribute[str], value: str) -> None:
    if not value or "/" in value or "\0" in value or value in {".", ".."}:
        raise InvalidOptionError(f"{field.name} is a name, not {value!r}", option=field.name)


def _part(record: object, field: attrs.Attribute[str], value: str) -> None:
    _name(record, field, value)
    if "_" in value:
        raise InvalidOptionError(
            f"{field.name} has no underscore, which stands between the parts, and {value!r} has",
            option=field.name,
        )


@attrs.frozen(kw_only=True)
class PodLog:
    """One life of one container of a pod.

    Args:
        namespace, pod, uid: The pod's; none has an underscore.
        container: Its name in the pod.
        restart: How often it was started before; 0 is the first.
    """

    namespace: str = attrs.field(validator=_part)
    pod: str = attrs.field(validator=_part)
    uid: str = attrs.field(validator=_part)
    container: str = attrs.field(validator=_name)
    restart: int = attrs.field(default=0, validator=attrs.validators.ge(0))

    @property
    def directory(self) -> str:
        """The pod's (CRI's ``LogDirectory``), below ``/var/log/pods``."""
        return f"{self.namespace}_{self.pod}_{self.uid}"

    @property
    def name(self) -> str:
        """The log within it (CRI's ``LogPath``)."""
        return f"{self.container}/{self.restart}{SUFFIX}"

    def path(self, root: str = PODS) -> str:
        """The whole of it."""
        return os.path.join(root, self.directory, self.name)

    @classmethod
    def parse(cls, path: str) -> PodLog:
        """What :meth:`path` was made of; *path* may be the log of a rotation, too.

        Raises:
            InvalidOptionError: It is none of kubelet's.
        """
        directory, container, name = ["", "", *path.split("/")][-3:]
        parts = directory.split("_")
        number, dot, rest = name.partition(".")
        is_log = dot and (rest == "log" or rest.startswith("log."))
        if len(parts) != 3 or not (is_log and number.isascii() and number.isdigit()):
            raise InvalidOptionError(
                f"{path!r} is not <namespace>_<pod>_<uid>/<container>/<restart>.log", option="path"
            )
        namespace, pod, uid = parts
        return cls(namespace=namespace, pod=pod, uid=uid, container=container, restart=int(number))

    def link_name(self, container_id: str) -> str:
        """Of the link below ``/var/log/containers``; cut, when it is too long for a file system."""
        whole = f"{self.pod}_{self.namespace}_{self.container}-{container_id}"
        return os.fsdecode(os.fsencode(whole)[:LONGEST]) + SUFFIX


@attrs.frozen(kw_only=True)
class LinkName:
    """What the name of a link below ``/var/log/containers`` says.

    Args:
        pod, namespace: The pod's.
        container: Its name in the pod.
        id: The container's; cut, or empty, where the name had to be.
    """

    pod: str
    namespace: str
    container: str
    id: str

    @classmethod
    def parse(cls, path: str) -> LinkName:
        """What :meth:`PodLog.link_name` was made of.

        Raises:
            InvalidOptionError: It is no such name.
        """
        name = os.path.basename(path)
        parts = name.removesuffix(SUFFIX).split("_", 2)
        if not name.endswith(SUFFIX) or len(parts) != 3 or not all(parts):
            raise InvalidOptionError(
                f"{path!r} is not <pod>_<namespace>_<container>-<id>.log", option="path"
            )
        pod, namespace, rest = parts
        # (A container's name may have hyphens, and an id has none.)
        container, hyphen, id = rest.rpartition("-")  # noqa: A001 - CRI's word
        if not hyphen:
            container, id = rest, ""  # noqa: A001
        return cls(pod=pod, namespace=namespace, container=container, id=id)


def link(target: str, path: str) -> bool:
    """Have *path* be a link to *target*, whatever was there; whether there is one now.

    A target that is missing gets no link, and an old link to it is removed: whoever follows it
    would wait for nothing.  (kubelet's links dangle: kubernetes #52172.)
    """
    with suppress(FileNotFoundError):
        _kernel.unlink(path)
    if not os.path.exists(target):
        return False
    _kernel.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    _kernel.symlink(target, path)
    return True


def label_link(labels: dict[str, str], log: str) -> str | None:
    """Link a container's log as its labels say (dockershim's ``createContainerLogSymlink``).

    Also after a start that failed, whose log says why.

    Args:
        labels: The container's; without ``io.kubernetes.container.logpath`` it gets no link.
        log: docker's json-file.

    Returns:
        The link's path; None when there is none, because the log is missing, say.
    """
    path = labels.get(LOG_PATH_LABEL)
    if path is None or not link(log, path):
        return None
    return path
