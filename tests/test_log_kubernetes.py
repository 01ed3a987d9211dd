"""Where kubelet looks for logs, and the links of old."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyshimio.errors import InvalidOptionError
from pyshimio.logging.kubernetes import LOG_PATH_LABEL, LinkName, PodLog, label_link, link

if TYPE_CHECKING:
    from pathlib import Path

PARTS = st.from_regex(r"[a-z0-9][-.a-z0-9]{0,20}", fullmatch=True)
LOG = PodLog(namespace="kube-system", pod="dns-5", uid="9a-b", container="dns", restart=2)


def test_the_path() -> None:
    """CRI's two parts, and the whole."""
    assert LOG.directory == "kube-system_dns-5_9a-b"
    assert LOG.name == "dns/2.log"
    assert LOG.path() == "/var/log/pods/kube-system_dns-5_9a-b/dns/2.log"
    assert LOG.path("/x") == "/x/kube-system_dns-5_9a-b/dns/2.log"


@given(PARTS, PARTS, PARTS, PARTS, st.integers(0, 1000))
def test_parsing_is_the_way_back(
    namespace: str, pod: str, uid: str, container: str, restart: int
) -> None:
    """Whatever was put in comes out, of a rotated log's path, too."""
    log = PodLog(namespace=namespace, pod=pod, uid=uid, container=container, restart=restart)
    assert PodLog.parse(log.path()) == log
    assert PodLog.parse(f"{log.path('/elsewhere')}.20261126-101112.gz") == log


@given(PARTS, PARTS, PARTS, st.from_regex(r"[0-9a-f]{64}", fullmatch=True))
def test_a_links_name_and_the_way_back(
    namespace: str, pod: str, container: str, container_id: str
) -> None:
    """All four parts of it."""
    log = PodLog(namespace=namespace, pod=pod, uid="u", container=container)
    found = LinkName.parse(f"/var/log/containers/{log.link_name(container_id)}")
    assert found == LinkName(pod=pod, namespace=namespace, container=container, id=container_id)


def test_a_links_name_that_was_cut() -> None:
    """What there is of the id, if there is any."""
    log = PodLog(namespace="n" * 60, pod="p" * 120, uid="u", container="c" * 60)
    found = LinkName.parse(log.link_name("0" * 64))
    assert (found.container, found.id) == ("c" * 60, "0" * 8)
    log = PodLog(namespace="n" * 60, pod="p" * 129, uid="u", container="c" * 60)
    assert LinkName.parse(log.link_name("0" * 64)).id == ""
    for name in ("x.log", "p_n.log", "p_n_c-0.txt", "_n_c-0.log"):
        with pytest.raises(InvalidOptionError, match="<pod>"):
            LinkName.parse(name)


@pytest.mark.parametrize(
    "path",
    ["", "/x.log", "/a_b/c/0.log", "/a_b_c_d/c/0.log", "/a_b_c/c/x.log", "/a_b_c/c/0.txt", "0.log"],
)
def test_what_is_no_such_path(path: str) -> None:
    """It is said."""
    with pytest.raises(InvalidOptionError):
        PodLog.parse(path)


@pytest.mark.parametrize("field", ["namespace", "pod", "uid", "container", "restart"])
def test_what_is_no_name(field: str) -> None:
    """No part may end another one."""
    parts: dict[str, object] = {"namespace": "n", "pod": "p", "uid": "u", "container": "c"}
    for wrong in ("", "a/b", "..", -1) if field == "restart" else ("", "a/b", ".."):
        with pytest.raises((InvalidOptionError, ValueError, TypeError)):
            PodLog(**{**parts, field: wrong})  # type: ignore[arg-type]
    if field not in {"container", "restart"}:
        with pytest.raises(InvalidOptionError, match="underscore"):
            PodLog(**{**parts, field: "a_b"})  # type: ignore[arg-type]


def test_the_name_of_a_link() -> None:
    """As agents parse it; cut to what a file system takes, by bytes."""
    assert LOG.link_name("abc") == "dns-5_kube-system_dns-abc.log"
    long = PodLog(namespace="n", pod="p" * 300, uid="u", container="c")
    assert len(os.fsencode(long.link_name("abc"))) == 255
    assert long.link_name("abc").endswith("p.log")


def test_links(tmp_path: Path) -> None:
    """To what is there alone; an old one is replaced, or removed."""
    log, path = tmp_path / "log", tmp_path / "containers" / "x.log"
    assert not link(str(log), str(path))
    assert not path.is_symlink()
    log.touch()
    assert link(str(log), str(path))
    assert path.resolve() == log
    other = tmp_path / "other"
    other.touch()
    assert link(str(other), str(path))
    assert path.resolve() == other
    assert not link(str(tmp_path / "gone"), str(path))
    assert not path.is_symlink()


def test_links_of_labels(tmp_path: Path) -> None:
    """Where a label asks for one, and the log is there, whatever became of the container."""
    log, path = tmp_path / "log", tmp_path / "pod" / "0.log"
    labels = {LOG_PATH_LABEL: str(path)}
    assert label_link({}, str(log)) is None
    assert label_link(labels, str(log)) is None
    log.touch()
    assert label_link(labels, str(log)) == str(path)
    assert path.resolve() == log
