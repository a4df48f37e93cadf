"""The control panel's database: servers, clients, hypervisors, VMs, devices, and what VMs were."""
