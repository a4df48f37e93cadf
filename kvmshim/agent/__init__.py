"""The agent: runs VMs on this client platform, as a server's control panel says."""
