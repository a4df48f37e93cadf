from __future__ import annotations

from live_servers import bystander, server, where

__all__ = ["bystander", "server", "where"]
