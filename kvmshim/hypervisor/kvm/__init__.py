"""KVM's three levels - system, VM, vCPU - and its ring of coalesced writes."""
