"""The device-model server: hosts device models for virtual machines that run elsewhere."""

from devserver.version import __version__

__all__ = ["__version__"]
