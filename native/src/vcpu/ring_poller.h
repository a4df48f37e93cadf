/*
 * The poller of this process's rings of coalesced writes: one thread that looks at all of them that
 * are not idle, every COALESCED_TICK_NS, and sleeps when all of them are.
 */
#ifndef KVMSHIM_RING_POLLER_H
#define KVMSHIM_RING_POLLER_H

#include "vcpu/coalesced.h"

/* Looks after a ring from now on; 0, or -1 with errno set. */
int ring_poller_add(struct coalesced *coalesced);
/* Looks after it no longer: it is not being looked at when this returns. */
void ring_poller_remove(struct coalesced *coalesced);

#endif
