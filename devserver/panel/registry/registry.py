"""The registry: what the panel knows, kept in a database that servers may share.

Every call is one transaction, and raises :class:`RegistryError` in one line if it fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from devserver.panel.fleet import ENDED, VmState
from devserver.panel.registry import blobs, guests, schema
from devserver.panel.registry.blobs import STATE
from devserver.panel.registry.clock import is_alive, now
from devserver.panel.registry.database import BUSY_SECONDS, make_engine, one_line, said
from devserver.panel.registry.ended import forget_ended
from devserver.panel.registry.errors import RegistryError, Taken, Uncertain
from devserver.panel.registry.tables import (
    ClientRow,
    DeviceRow,
    GuestRow,
    HypervisorRow,
    ServerRow,
    VmRow,
)

#: A row as plain data, by column.
Row = dict[str, Any]


class Registry:
    """The database at ``url``; of a server called ``server``. May be used from any thread."""

    def __init__(self, url: str, server: str, busy_seconds: float = BUSY_SECONDS) -> None:
        """Opens it, and makes its tables if it has none."""
        self._server = server
        self._engine = make_engine(url, busy_seconds)
        with one_line(self._engine.url), self._engine.begin() as connection:
            schema.make_ready(connection, str(self._engine.url))

    def close(self) -> None:
        """Closes its connections."""
        self._engine.dispose()

    # -- servers ------------------------------------------------------------------------------

    def server_up(self, address: str) -> int:
        """This server runs at an address; its number. Raises :class:`Taken` for another's name."""
        with self._transaction() as session:
            row = session.scalar(select(ServerRow).where(ServerRow.name == self._server))
            if row is None:
                row = ServerRow(name=self._server)
                session.add(row)
            elif is_alive(row, now(session)) and row.address != address:
                raise Taken(
                    f"a server named '{self._server}' at {row.address} uses this registry; give "
                    f"one of them another --name"
                )
            row.address, row.owner, row.up, row.heard = address, "", True, now(session)
            session.flush()
            return row.server_id

    def server_down(self) -> None:
        """This server ends, and with it its connections to others."""
        with self._transaction() as session:
            ours = (ServerRow.name == self._server) | (ServerRow.owner == self._server)
            session.execute(update(ServerRow).where(ours).values(up=False))
            here = ClientRow.server == self._server
            session.execute(update(ClientRow).where(here).values(server=""))
            session.execute(delete(GuestRow).where(GuestRow.server == self._server))

    def heard(self, io_servers: Iterable[Mapping[str, Any]]) -> None:
        """This server is still there, and so are these I/O servers of its."""
        with self._transaction() as session:
            ours = ServerRow.name == self._server
            session.execute(update(ServerRow).where(ours).values(up=True, heard=now(session)))
            known = {row.name: row for row in session.scalars(select(ServerRow))}
            for row in known.values():
                if row.owner == self._server:
                    row.up = False
            for server in io_servers:
                row = known.get(server["name"]) or ServerRow(name=server["name"])
                if row.server_id is None:
                    session.add(row)
                elif row.owner != self._server:
                    continue  # the name is another's, who came first
                row.address, row.owner = server["address"], self._server
                row.up, row.heard = True, now(session)

    def servers(self) -> list[Row]:
        """All servers; ``up``: heard of lately."""
        with self._transaction() as session:
            rows = session.scalars(select(ServerRow).order_by(ServerRow.server_id))
            moment = now(session)
            return [{**_plain(row), "up": is_alive(row, moment)} for row in rows]

    # -- clients ------------------------------------------------------------------------------

    def register_client(self, name: str) -> int:
        """A client is made known in advance; its number."""
        with self._transaction() as session:
            row = session.scalar(select(ClientRow).where(ClientRow.name == name))
            if row is None:
                row = ClientRow(name=name, hostname="", server="")
                session.add(row)
            row.registered = True
            session.flush()
            return row.client_id

    def client_came(
        self,
        name: str,
        hostname: str,
        hypervisors: Iterable[Mapping[str, Any]],
        *,
        only_registered: bool = False,
    ) -> int:
        """A client has connected to this server; its number.

        Raises :class:`Taken` if it is connected to another one, and RegistryError if it is to be
        known in advance and is not.
        """
        with self._transaction() as session:
            row = session.scalar(select(ClientRow).where(ClientRow.name == name))
            if row is None:
                if only_registered:
                    raise RegistryError(
                        f"client '{name}' is not registered; 'devserver client register {name}' "
                        f"does that"
                    )
                row = ClientRow(name=name, registered=False)
                session.add(row)
            elif row.server not in ("", self._server) and self._is_up(session, row.server):
                raise Taken(
                    f"a client named '{name}' is connected to server '{row.server}'; give one of "
                    f"them another --name"
                )
            row.hostname, row.server = hostname, self._server
            session.flush()
            of_it = HypervisorRow.client_id == row.client_id
            session.execute(delete(HypervisorRow).where(of_it))
            for hypervisor in hypervisors:
                session.add(HypervisorRow(client_id=row.client_id, **hypervisor))
            return row.client_id

    def client_went(self, name: str) -> None:
        """A client's connection to this server is gone."""
        with self._transaction() as session:
            here = (ClientRow.name == name) & (ClientRow.server == self._server)
            session.execute(update(ClientRow).where(here).values(server=""))

    def clients(self) -> list[Row]:
        """All clients with their hypervisors; ``server`` is where each is connected."""
        with self._transaction() as session:
            hypervisors: dict[int, list[Row]] = {}
            for one in session.scalars(select(HypervisorRow).order_by(HypervisorRow.kind)):
                plain = _plain(one)
                hypervisors.setdefault(plain.pop("client_id"), []).append(plain)
            up = self._up(session)
            rows = [_plain(row) for row in session.scalars(_by(ClientRow.client_id))]
            for row in rows:
                row["hypervisors"] = hypervisors.get(row["client_id"], [])
                row["server"] = row["server"] if row["server"] in up else ""
            return rows

    # -- VMs ----------------------------------------------------------------------------------

    def new_vm(self, name: str, client: str, **more: Any) -> int:
        """A VM of this server; its number. Raises :class:`Taken` if the name is another VM's."""
        with self._transaction() as session:
            row = session.scalar(select(VmRow).where(VmRow.name == name))
            if row is not None:
                if row.registered or row.state not in [str(state) for state in ENDED]:
                    raise Taken(_taken(row))
                session.delete(row)
                session.flush()
            fresh = {
                "hypervisor": "kvm",
                "state": str(VmState.LAUNCHING),
                "why": "",
                "memory_bytes": 0,
                "registered": False,
                "machine": "",
                "image_name": "",
                "epoch": 1,
                **more,
            }
            forget_ended(session, self._server)
            row = VmRow(
                name=name, client=client, server=self._server, changed=now(session), **fresh
            )
            session.add(row)
            session.flush()
            return row.vm_id

    def adopt_vm(self, vm_id: int, name: str, client: str, epoch: int = 0) -> None:
        """A client has a VM that nobody knew. Raises :class:`Taken` for a name or number in use."""
        with self._transaction() as session:
            same = (VmRow.vm_id == vm_id) | (VmRow.name == name)
            for row in session.scalars(select(VmRow).where(same)):
                known = (row.vm_id, row.name, row.client) == (vm_id, name, client)
                if not known or row.epoch > epoch:
                    raise Taken(_taken(row))
                row.server = self._server  # it was another's, at whose time the client had it
                return
            session.add(
                VmRow(
                    vm_id=vm_id,
                    name=name,
                    client=client,
                    server=self._server,
                    hypervisor="kvm",
                    state=str(VmState.LOST),
                    why="",
                    memory_bytes=0,
                    registered=False,
                    machine="",
                    image_name="",
                    changed=now(session),
                    epoch=epoch,
                )
            )
            session.flush()
            if self._engine.dialect.name == "postgresql":
                sequence = func.pg_get_serial_sequence("vms", "vm_id")
                highest = select(func.max(VmRow.vm_id)).scalar_subquery()
                session.execute(select(func.setval(sequence, highest)))

    def claim(self, vm_id: int) -> None:
        """A VM that no client has is this server's from now on. Raises :class:`Taken`."""
        free = [str(state) for state in (*ENDED, VmState.SUSPENDED, VmState.DEFINED)]
        with self._transaction() as session:
            row = session.get(VmRow, vm_id, with_for_update=True)
            if row is None:
                raise RegistryError(f"there is no VM {vm_id} any more")
            if row.server != self._server and row.state not in free:
                raise Taken(_taken(row))
            row.server = self._server

    def place_vm(self, vm_id: int, client: str, state: str) -> int:
        """A client is to have a VM, from now on and nobody else; the VM's epoch."""
        with self._transaction() as session:
            row = self._own(session, vm_id)
            row.client, row.state, row.why, row.changed = client, state, "", now(session)
            row.exit_status = None
            row.epoch += 1
            return row.epoch

    def suspended(self, vm_id: int, path: Path) -> int:
        """A VM's state is kept, and no client has the VM any more, both or neither; its epoch."""
        with self._transaction() as session:
            row = self._own(session, vm_id)
            row.state, row.why, row.changed = str(VmState.SUSPENDED), "", now(session)
            row.epoch += 1
            epoch = row.epoch
            session.flush()
            blobs.put(session, vm_id, STATE, path)
            return epoch

    def without_state(self, vm_id: int, state: str, why: str = "") -> None:
        """A VM is in another state, and its suspended one is dropped, both or neither."""
        with self._transaction() as session:
            row = self._own(session, vm_id)
            row.state, row.why, row.changed = state, why, now(session)
            blobs.drop(session, vm_id, STATE)

    def save_vms(self, vms: Iterable[Mapping[str, Any]]) -> None:
        """Writes VMs of this server as they are now, with their devices."""
        with self._transaction() as session:
            for vm in vms:
                row = session.get(VmRow, vm["vm_id"])
                if row is None or row.server != self._server:
                    continue  # removed, or another server's by now
                epoch = vm.get("epoch", row.epoch)
                if epoch < row.epoch:
                    continue  # somebody else is to have it since
                row.epoch = epoch
                for column in ("client", "hypervisor", "state", "why", "memory_bytes"):
                    setattr(row, column, vm[column])
                row.exit_status = vm.get("exit_status")
                row.changed = now(session)
                session.execute(delete(DeviceRow).where(DeviceRow.vm_id == vm["vm_id"]))
                for device in vm["devices"]:
                    session.add(DeviceRow(vm_id=vm["vm_id"], **device))

    def vms(self) -> list[Row]:
        """All VMs of all servers, with their devices; ``has_state``: a whole one is kept."""
        with self._transaction() as session:
            devices: dict[int, list[Row]] = {}
            for one in session.scalars(select(DeviceRow).order_by(DeviceRow.name)):
                plain = _plain(one)
                devices.setdefault(plain.pop("vm_id"), []).append(plain)
            kept = blobs.whole(session, STATE)
            rows = [_plain(row) for row in session.scalars(_by(VmRow.vm_id))]
            for row in rows:
                row["devices"] = devices.get(row["vm_id"], [])
                row["has_state"] = row["vm_id"] in kept
                del row["changed"]
            return rows

    def remove_vm(self, vm_id: int) -> None:
        """Forgets a VM, with its image and state."""
        with self._transaction() as session:
            session.execute(delete(VmRow).where(VmRow.vm_id == vm_id))

    def save_guests(self, changed: Iterable[Mapping[str, Any]], gone: Iterable[int] | None) -> None:
        """VMs that clients of this server run by themselves, and the numbers of those that have
        ended; None: all that were known."""
        with self._transaction() as session:
            guests.save(session, self._server, list(changed), gone)

    def guests(self) -> list[Row]:
        """Such VMs of all servers that are up."""
        with self._transaction() as session:
            up = self._up(session)
            rows = session.scalars(select(GuestRow).order_by(GuestRow.server, GuestRow.vm_id))
            return [_plain(row) for row in rows if row.server in up]

    # -- images and states --------------------------------------------------------------------

    def put_blob(self, vm_id: int, what: str, path: Path) -> None:
        """Keeps a file; when this returns all of it is in the database, else nothing is."""
        with self._transaction() as session:
            blobs.put(session, vm_id, what, path)

    def get_blob(self, vm_id: int, what: str, file: IO[bytes]) -> None:
        """Writes what was kept into a file."""
        with self._transaction() as session:
            blobs.get(session, vm_id, what, file)

    def has_blob(self, vm_id: int, what: str) -> bool:
        """Whether a whole one is kept."""
        with self._transaction() as session:
            return vm_id in blobs.whole(session, what)

    # -- inner workings -----------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        with one_line(self._engine.url), Session(self._engine) as session:
            written = False
            try:
                with session.begin():
                    yield session
                    session.flush()
                    written = True
            except IntegrityError as error:
                raise Taken(
                    f"another server was quicker ({type(error.orig).__name__}); try again"
                ) from error
            except DBAPIError as error:
                if written:  # and not heard of it
                    raise Uncertain(str(said(self._engine.url, error.orig))) from error
                raise

    def _own(self, session: Session, vm_id: int) -> VmRow:
        """A VM of this server's, to be changed."""
        row = session.get(VmRow, vm_id, with_for_update=True)
        if row is None:
            raise RegistryError(f"there is no VM {vm_id} any more")
        if row.server != self._server:
            raise Taken(_taken(row))
        return row

    def _is_up(self, session: Session, name: str) -> bool:
        return name in self._up(session)

    @staticmethod
    def _up(session: Session) -> set[str]:
        """The servers that are there."""
        moment = now(session)
        return {row.name for row in session.scalars(select(ServerRow)) if is_alive(row, moment)}


def upgrade(url: str) -> str:
    """Brings a database to the schema of this program, whose name is the result."""
    engine = make_engine(url)
    with one_line(engine.url), engine.begin() as connection:
        schema.upgrade(connection, str(engine.url))
    engine.dispose()
    return schema.head()


def _taken(row: VmRow) -> str:
    where = f" on client '{row.client}'" if row.client else ""
    return (
        f"VM '{row.name}' ({row.vm_id}) is there already: server '{row.server}' has it, "
        f"{row.state}{where}"
    )


def _by(column: Any) -> Any:
    return select(column.class_).order_by(column)


def _plain(row: Any) -> Row:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}
