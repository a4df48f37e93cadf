"""The device-model server: hosts device models for virtual machines that run elsewhere."""
