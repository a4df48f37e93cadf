"""Device models: one file each, pure and synchronous, with no sockets, threads or clock.

:mod:`devserver.models.device` is what a model is made of; :mod:`devserver.models.catalog` finds
models by kind, bundled ones and those that other packages register.
"""

from devserver.models.device import (
    Access,
    Context,
    Device,
    Policy,
    Region,
    Register,
    Signal,
    Space,
)

__all__ = ["Access", "Context", "Device", "Policy", "Region", "Register", "Signal", "Space"]
