/*
 * A load for a server: many clients in one thread, that ask as fast as they are answered.
 *
 * The handshake, up to a running clock, is done elsewhere. A client does the accesses that it is
 * given, one after the other and round again: as requests, of which it has one under way, or
 * posted in batches, of which it has as many under way as its window allows.
 */
#ifndef KVMSHIM_LOAD_H
#define KVMSHIM_LOAD_H

#include <stddef.h>
#include <stdint.h>

enum { LOAD_MAX_ACCESSES = 64, LOAD_MAX_BATCH = 256 };

struct load_access {
    uint32_t device_id;
    uint8_t direction, space, size;
    uint64_t address, value;
};

/* A client; its numbers go on from run to run. */
struct load_client {
    int fd;
    uint32_t server_id, vm_id, client_id, window;
    uint8_t hypervisor;
    uint64_t sent, received; /* last sequence numbers, as the handshake left them */
    int64_t clock_start_ns;  /* CLOCK_MONOTONIC at VM time 0 */
};

struct load_plan {
    const struct load_access *accesses;
    uint32_t access_count; /* 1 to LOAD_MAX_ACCESSES */
    uint32_t batch;        /* posted accesses in a batch, up to LOAD_MAX_BATCH; 0: requests */
    uint32_t spin;         /* looks at every client all the time, instead of waiting in epoll */
    int64_t duration_ns;
};

struct load_result {
    uint64_t done;      /* accesses answered or acknowledged in the time */
    uint64_t total;     /* and with those that were under way when it was over */
    int64_t elapsed_ns; /* the time that it took */
    uint64_t sends, receives;
    uint64_t interrupts, emitted; /* messages, bytes */
};

/*
 * Runs the plan with all clients at once and waits until everything is answered. Returns 0, or -1
 * and errno: EPROTO for an answer that was not expected, ECONNRESET where the server hung up,
 * ETIMEDOUT where it said nothing for ten seconds.
 */
int load_run(struct load_client *clients, size_t count, const struct load_plan *plan,
             struct load_result *result);

#endif
