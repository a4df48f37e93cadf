/* KVM's ring of coalesced writes (native/src/vcpu/coalesced.h, keeper.h). */

struct coalesced *coalesced_new(struct vcpu *vcpu, void *ring);
void coalesced_free(struct coalesced *coalesced);
void coalesced_zone(struct coalesced *coalesced, uint64_t address, uint32_t size, bool port);
int keeper_add(struct coalesced *coalesced);
void keeper_remove(struct coalesced *coalesced);
