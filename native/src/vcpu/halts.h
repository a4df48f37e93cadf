/*
 * Guests that write and then halt until the device interrupts them.
 *
 * Such a guest gains nothing by a posted write: it sleeps instead of waiting, and for its interrupt
 * both the thread that reads the link and its own have to be woken. When that is seen to happen, its
 * writes wait for the server for a while, as if their policy were to finish: the thread that waits
 * reads the interrupt itself, and it is pending before the guest can halt.
 *
 * Looked at are writes that follow an interrupt of their server, as a driver's handler makes them.
 * Only the vCPU's thread, while it serves an exit, uses any of this.
 */
#ifndef KVMSHIM_HALTS_H
#define KVMSHIM_HALTS_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/routes.h"

struct halts {
    bool serving;              /* an exit is served, so that a write may wait */
    uint16_t link;             /* of the last write, and */
    uint64_t interrupts;       /* how many there were from it then */
    bool watched, waited;      /* a posted write is watched; a write waited */
    int64_t wrote_ns, used_ns; /* the time then, and the time that this thread had used */
    uint32_t seen;             /* writes in a row that the guest halted after */
    uint32_t waits;            /* writes that are still to wait */
    uint32_t next;             /* how many it will be the next time */
    uint32_t missed;           /* waits in a row that brought no interrupt */
};

/* The guest has made an exit, which is served now. */
void halts_exit(struct halts *halts, const struct routes *routes);
/* It is served. */
void halts_served(struct halts *halts);
/* A write to be posted on a link: whether it is to wait instead. */
bool halts_wait(struct halts *halts, const struct routes *routes, uint16_t link);

#endif
