"""VMs that talk through a mailbox go on doing so while they migrate and are paused."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from environment import GUESTS, Cluster, cluster

pytestmark = pytest.mark.kvm

MACHINE = """
[image]
path = "{image}"

[[device]]
name = "mailbox"
kind = "mailbox"
port = 0x300
irq = 5
options = {{ box = "post office", member = {member} }}
"""
REPORT = re.compile(rb"(sent|answered) 1000 messages, sum ([0-9A-F]{8})\r\n")


def launch(site: Cluster, folder: Path, member: int, client: str) -> None:
    machine = folder / f"mail{member}.toml"
    machine.write_text(MACHINE.format(image=GUESTS / "mail.bin", member=member))
    site.does("vm", "launch", machine, "--client", client)


def test_no_word_is_lost_between_vms_that_migrate_and_are_paused(tmp_path: Path) -> None:
    with cluster(f"unix:{tmp_path}/socket", "a", "b") as site:
        launch(site, tmp_path, 0, "a")
        with site.console("mail0", "--read-only") as sender:
            launch(site, tmp_path, 1, "b")
            with site.console("mail1", "--read-only") as answerer:
                for name, order in itertools.product(("mail0", "mail1") * 2, ("migrate", "pause")):
                    site.run("vm", order, name)
                    if order == "pause":
                        site.run("vm", "resume", name)
                texts = [shown.process.communicate()[0] for shown in (sender, answerer)]
    reports = [REPORT.search(text) for text in texts]
    assert all(reports), texts
    assert len({report[2] for report in reports if report}) == 1
