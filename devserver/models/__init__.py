"""Device models: one file each, pure and synchronous, with no sockets, threads or clock.

:mod:`devserver.models.device` is what a model is made of; :mod:`devserver.models.catalog` finds
models by kind, bundled ones and those that other packages register.
"""

from devserver.models.device import (
    ANY_LANE,
    Access,
    Context,
    Device,
    DeviceBus,
    Hold,
    Lease,
    ModelError,
    NullBus,
    OptionError,
    Policy,
    Region,
    Register,
    Signal,
    Space,
    StateError,
    Term,
)

__all__ = [
    "ANY_LANE",
    "Access",
    "Context",
    "Device",
    "DeviceBus",
    "Hold",
    "Lease",
    "ModelError",
    "NullBus",
    "OptionError",
    "Policy",
    "Region",
    "Register",
    "Signal",
    "Space",
    "StateError",
    "Term",
]
