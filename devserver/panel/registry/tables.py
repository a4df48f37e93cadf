"""The registry's tables, as SQLAlchemy sees them; the migrations make them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, Integer, LargeBinary, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

_CASCADE = "CASCADE"
#: SQLite numbers rows by itself in a column of this very type only.
Number = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC; SQLite keeps no zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """What all tables have in common."""

    type_annotation_map = {
        str: String(255),
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(none_as_null=True),
        list[dict[str, Any]]: JSON(none_as_null=True),
    }


class ServerRow(Base):
    """``owner`` is the name of the server that it has joined; empty for an owner."""

    __tablename__ = "servers"
    server_id: Mapped[int] = mapped_column(Number, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    address: Mapped[str]
    owner: Mapped[str]
    up: Mapped[bool]
    heard: Mapped[datetime]


class ClientRow(Base):
    """``server`` is the name of the server that it is connected to; empty: to none."""

    __tablename__ = "clients"
    __table_args__ = {"sqlite_autoincrement": True}
    client_id: Mapped[int] = mapped_column(Number, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    hostname: Mapped[str]
    server: Mapped[str]
    registered: Mapped[bool]


class HypervisorRow(Base):
    """A hypervisor of a client, with what it can."""

    __tablename__ = "hypervisors"
    client_id: Mapped[int] = mapped_column(
        ForeignKey("clients.client_id", ondelete=_CASCADE), primary_key=True
    )
    kind: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str]
    capabilities: Mapped[dict[str, Any]]


class VmRow(Base):
    """``server`` is the name of the server that manages it; ``registered``: in advance.

    ``epoch`` grows whenever somebody else is to have the VM: a client that has it of an older one
    does not have it any more.
    """

    __tablename__ = "vms"
    __table_args__ = {"sqlite_autoincrement": True}
    vm_id: Mapped[int] = mapped_column(Number, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    server: Mapped[str]
    client: Mapped[str]
    hypervisor: Mapped[str]
    state: Mapped[str]
    why: Mapped[str] = mapped_column(Text)
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    registered: Mapped[bool]
    machine: Mapped[str] = mapped_column(Text)
    image_name: Mapped[str]
    changed: Mapped[datetime]
    epoch: Mapped[int] = mapped_column(BigInteger, server_default="0")
    #: What ``kvmshim run`` would have exited with, of one that has ended.
    exit_status: Mapped[int | None]


class GuestRow(Base):
    """A VM that its client runs by itself, while it is attached to ``server``, which numbers it."""

    __tablename__ = "guests"
    server: Mapped[str] = mapped_column(primary_key=True)
    vm_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    name: Mapped[str]
    client: Mapped[str]
    hypervisor: Mapped[str]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    devices: Mapped[list[dict[str, Any]]]


class DeviceRow(Base):
    """A device of a VM; ``place`` is ``local`` or the server that has it."""

    __tablename__ = "devices"
    vm_id: Mapped[int] = mapped_column(ForeignKey("vms.vm_id", ondelete=_CASCADE), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    version: Mapped[int]
    place: Mapped[str]


class BlobRow(Base):
    """A part of a VM's image or suspended state; whole if one of them is ``last``."""

    __tablename__ = "blobs"
    vm_id: Mapped[int] = mapped_column(ForeignKey("vms.vm_id", ondelete=_CASCADE), primary_key=True)
    what: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[bool]
    data: Mapped[bytes] = mapped_column(LargeBinary)
