/* KVM's ring of coalesced writes (native/src/coalesced.h). */

struct coalesced *coalesced_new(struct vcpu *vcpu, void *ring);
void coalesced_free(struct coalesced *coalesced);
void coalesced_serve(struct coalesced *coalesced);
void coalesced_close(struct coalesced *coalesced);
