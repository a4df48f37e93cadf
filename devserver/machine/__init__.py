"""One VM's devices: bus, slots, board, policies, leases, VM time, snapshots."""
