/*
 * The accesses that nobody claims, place by place: how often, and the first and the last of each.
 *
 * A place is a port, or a page of memory. There is room for UNCLAIMED_PLACES; when it is full, a
 * new place takes the room of the one with the least weight and goes on from that weight. So a
 * place that makes up more than one in UNCLAIMED_PLACES of all these accesses is always there
 * in the end, whatever a guest has tried before (Metwally et al., 'Space-Saving', 2005).
 */
#ifndef KVMSHIM_UNCLAIMED_H
#define KVMSHIM_UNCLAIMED_H

#include <stdbool.h>
#include <stdint.h>

struct vcpu;
struct vcpu_access;

enum {
    UNCLAIMED_PLACES = 256,
    UNCLAIMED_POST_CODES = 16, /* that are kept: the last of those written to port 80h */
    UNCLAIMED_LOCATED = 4096,  /* KVM is asked no more often where the guest is */
};

struct unclaimed_access {
    uint64_t time_ns; /* VM time */
    uint64_t address, value; /* of several elements the last one */
    uint8_t direction, size;
};

struct unclaimed_place {
    uint8_t space;
    bool has_code;
    uint64_t low, high; /* addresses seen, the end of an access too */
    uint64_t reads, writes, weight;
    uint64_t code; /* the linear address at which the guest was for the first access */
    struct unclaimed_access first, last;
};

struct unclaimed {
    uint32_t count, recent, located;
    uint64_t forgotten; /* accesses to places that have given way */
    uint64_t keys[UNCLAIMED_PLACES];
    struct unclaimed_place places[UNCLAIMED_PLACES];
    uint64_t post_count;
    uint8_t post_codes[UNCLAIMED_POST_CODES];
};

/* Notes an access that was answered already. */
void unclaimed_note(struct unclaimed *unclaimed, const struct vcpu *vcpu,
                    const struct vcpu_access *access);

#endif
