"""What ``devserver vm launch`` and ``register`` send: a machine file, and the image it boots."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devserver.commandline.errors import InputError
from devserver.commandline.progress import Progress
from devserver.protocol.names import check_name

if TYPE_CHECKING:
    from devserver.rpc import Peer

#: As much of an image's path as the registry keeps, for errors.
_LONGEST_NAME = 255
_BESIDE = Path(__file__).resolve().parents[2]


def bundled() -> dict[str, Path]:
    """The images of the guests that come with the program, by name."""
    installed = _BESIDE / "kvmshim" / "_guests"
    folder = installed if installed.is_dir() else _BESIDE / "guests"
    try:
        guests = tomllib.loads((folder / "manifest.toml").read_text())["guest"]
    except OSError:
        return {}
    return {name: folder / "built" / guest["file"] for name, guest in guests.items()}


async def brought(peer: Peer, what: str, name: str | None) -> dict[str, Any]:
    """A machine and its image, which is sent. Raises :class:`InputError`, BadName."""
    path = Path(what)
    called = check_name("a VM", name or path.stem)
    machine, where = "", ""
    if path.suffix == ".toml":
        machine, where = _machine(path), f"machine file {path}: "
        image = _image_of(path, machine)
    else:
        image = _found(path, what)
    _check_image(image, where)
    with Progress(f"sending {image}"):
        parcel = await peer.send_parcel(image)
    return {
        "name": called,
        "machine": machine,
        "image": parcel,
        "image_name": os.fsencode(image).decode(errors="backslashreplace")[-_LONGEST_NAME:],
    }


def _machine(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise InputError(f"can't read machine file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"machine file {path} is not UTF-8 text: {error}") from None


def _image_of(path: Path, machine: str) -> Path:
    try:
        given = tomllib.loads(machine)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"machine file {path} is not valid TOML: {error}") from None
    machine_table = given.get("machine")
    if isinstance(machine_table, dict) and machine_table.get("models"):
        raise InputError(
            f"machine file {path} names models, and only the image is sent to a client; give the "
            "files to 'devserver serve --model' (for local devices to 'kvmshim agent --model') and "
            "take the key 'models' out, or run it with 'kvmshim run'"
        )
    if unsent := next(_further_files(given), None):
        raise InputError(
            f"machine file {path} has {unsent}: only the image is sent to a client; run it there "
            "with 'kvmshim run'"
        )
    match given:
        case {"image": {"path": str(image)}}:
            return _found(path.parent / image, image, f"machine file {path}: ")
    raise InputError(f"machine file {path} names no image; add an [image] table with a path")


def _further_files(document: dict[str, Any]) -> Iterator[str]:
    """What a machine file has of files beside its image."""
    if document.get("module"):
        yield "modules"
    devices = document.get("device")
    for device in devices if isinstance(devices, list) else ():
        options = device.get("options") if isinstance(device, dict) else None
        files = options.get("files") if isinstance(options, dict) else None
        if isinstance(files, dict) and any(isinstance(file, dict) for file in files.values()):
            yield f"files of device '{device.get('name')}' by path"


def _check_image(path: Path, where: str) -> None:
    """Raises :class:`InputError` unless there is a file that can be sent."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            path.open("rb").close()
            return
        why = "it is not a regular file"
    except OSError as error:
        why = error.strerror or str(error)
        if isinstance(error, FileNotFoundError):
            why += "; 'kvmshim guests --json' says where the bundled guests are"
    raise InputError(f"{where}can't read image {path}: {why}")


def _found(path: Path, name: str, where: str = "") -> Path:
    """The file, or the bundled guest of that name if there is no such file."""
    if path.exists() or "/" in name:
        return path
    guests = bundled()
    if name in guests:
        return guests[name]
    near = get_close_matches(name, guests, 1)
    if not near:
        return path
    raise InputError(f"{where}can't read image {path}: there is none; did you mean '{near[0]}'?")
