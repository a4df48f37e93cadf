from __future__ import annotations

from collections.abc import Iterator

import pytest
import trial_device

from devserver.models import catalog


@pytest.fixture(autouse=True)
def _trial_kind() -> Iterator[None]:
    """Lets the catalog find the trial device in these tests, and in no others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalog.BUNDLED, trial_device.KIND, "trial_device:Trial")
        yield
