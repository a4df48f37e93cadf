/* KVM's ring of coalesced writes (native/src/vcpu/coalesced.h, ring_poller.h). */

struct coalesced *coalesced_new(struct vcpu *vcpu, void *ring);
void coalesced_free(struct coalesced *coalesced);
void coalesced_zone(struct coalesced *coalesced, uint64_t address, uint32_t size, bool port);
int ring_poller_add(struct coalesced *coalesced);
void ring_poller_remove(struct coalesced *coalesced);
