/*
 * One access of the guest, served: by a server, from a lease, or by nobody; or handed on to Python.
 *
 * What this touches of a vCPU and of its leases belongs to who serves the guest: the vCPU's thread
 * outside KVM_RUN, or the thread that drains the coalesced ring meanwhile (coalesced.h).
 */
#ifndef KVMSHIM_ACCESS_H
#define KVMSHIM_ACCESS_H

#include "vcpu/vcpu.h"

enum { VCPU_CONTINUE = -1 }; /* beside the vcpu_exit values */

/* VCPU_CONTINUE, or why vcpu_run is to return. */
int access_serve(struct vcpu *vcpu, const struct vcpu_access *access);
/* The rest of an access that is served byte by byte, after Python has served one of its bytes. */
int access_serve_rest(struct vcpu *vcpu, const struct vcpu_access *access);
/* Whether the access is a write that can be posted without any waiting. */
bool access_may_post(struct vcpu *vcpu, const struct vcpu_access *access);

#endif
