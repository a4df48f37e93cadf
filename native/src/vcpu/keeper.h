/*
 * The keeper of this process's rings of coalesced writes: one thread that looks at all of them that
 * do not doze, every COALESCED_TICK_NS, and sleeps when all of them do.
 */
#ifndef KVMSHIM_KEEPER_H
#define KVMSHIM_KEEPER_H

#include "vcpu/coalesced.h"

/* Looks after a ring from now on; 0, or -1 with errno set. */
int keeper_add(struct coalesced *coalesced);
/* Looks after it no longer: it is not being looked at when this returns. */
void keeper_remove(struct coalesced *coalesced);

#endif
