"""The secret and the pool by which libvirt reaches a Ceph cluster.

https://libvirt.org/formatsecret.html, https://libvirt.org/formatstorage.html
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement, tostring

import libvirt

from internal_api.drivers.protocols import SharedPool
from terrace.errors import Permanent, Transient


def ensure_pool(conn: Any, pool: SharedPool) -> None:
    """Secret and pool as described, the pool active. Slow while the cluster does not answer.

    libvirtd gives up after 30 s, by limits of its own; until then it holds up calls on this pool, and
    takes one of the few calls that it works on at a time for one connection: never make two of these at
    the same time. Domains do not need the pool, only the secret.

    The pool is not started with libvirtd, which would answer nobody before Ceph has answered it. Nor is it
    active after libvirtd was started anew.
    """
    _ensure_secret(conn, pool)
    found = _find_pool(conn, pool.name)
    if found is not None:
        described = _describe(found.XMLDesc(0))
        if described.kind != "rbd" or described.pool != pool.name:
            raise Permanent("operation_failed", "The hypervisor has another pool of the storage's name.")
        if found.isActive():
            if described == _wanted(pool):
                return
            found.destroy()  # less than it sounds: libvirt forgets the volumes that it has seen
    defined = conn.storagePoolDefineXML(_pool_xml(pool, found), 0)
    try:
        defined.create(0)
    except libvirt.libvirtError as error:
        if not defined.isActive():  # nobody else was faster
            raise Transient(
                "storage_unavailable", "The hypervisor does not reach the storage.", internal=f"libvirt: {error}"
            ) from None


def _ensure_secret(conn: Any, pool: SharedPool) -> None:
    try:
        value = base64.b64decode(pool.key, validate=True)
    except binascii.Error:
        raise Permanent("operation_failed", "The storage's key is not base64.") from None
    secret = Element("secret", ephemeral="no", private="yes")
    SubElement(secret, "uuid").text = pool.secret_uuid
    usage = SubElement(secret, "usage", type="ceph")
    # unique among the host's secrets, as those of other clusters may have the same user
    SubElement(usage, "name").text = f"client.{pool.username} {pool.secret_uuid}"
    # the value goes by a call of its own: the XML may be logged
    conn.secretDefineXML(tostring(secret, encoding="unicode"), 0).setValue(value, 0)


def _find_pool(conn: Any, name: str) -> Any | None:
    try:
        return conn.storagePoolLookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_STORAGE_POOL:
            return None
        raise


def _pool_xml(pool: SharedPool, found: Any | None) -> str:
    element = Element("pool", type="rbd")
    SubElement(element, "name").text = pool.name
    if found is not None:  # it can be defined again only under its own UUID; an operator may have made it
        SubElement(element, "uuid").text = found.UUIDString()
    source = SubElement(element, "source")
    for host, port in pool.hosts:
        SubElement(source, "host", name=host, port=str(port))
    SubElement(source, "name").text = pool.name
    auth = SubElement(source, "auth", type="ceph", username=pool.username)
    SubElement(auth, "secret", uuid=pool.secret_uuid)
    refresh = SubElement(element, "refresh")
    SubElement(refresh, "volume", allocation="capacity")  # else libvirt reads every image's map of blocks
    return tostring(element, encoding="unicode")


@dataclass(frozen=True, slots=True)
class _Description:
    kind: str | None
    pool: str | None
    hosts: frozenset[tuple[str | None, str | None]]
    username: str | None
    secret_uuid: str | None


def _wanted(pool: SharedPool) -> _Description:
    hosts = frozenset((host, str(port)) for host, port in pool.hosts)
    return _Description("rbd", pool.name, hosts, pool.username, pool.secret_uuid)


def _describe(xml: str) -> _Description:
    root = ElementTree.fromstring(xml)  # noqa: S314 - libvirtd is trusted
    auth, secret = root.find("source/auth"), root.find("source/auth/secret")
    return _Description(
        kind=root.get("type"),
        pool=root.findtext("source/name"),
        hosts=frozenset((host.get("name"), host.get("port")) for host in root.iterfind("source/host")),
        username=None if auth is None else auth.get("username"),
        secret_uuid=None if secret is None else secret.get("uuid"),
    )
