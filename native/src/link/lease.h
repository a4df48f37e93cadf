/*
 * Leases: answers of one-byte reads that a server has handed to the client (docs/protocol.md).
 *
 * Two threads meet here. Whoever reads the link's stream (and holds its receive lock) writes what a
 * LEASE says; the vCPU reads it without that lock, so the words are a seqlock of C11 atomics: an
 * odd version says that they are being written. The vCPU copies a version once and works with the
 * copy. What belongs to the copy alone - what is suspended, what is held - is touched only by who
 * serves the guest (vcpu.h).
 *
 * A LEASE can cross accesses of the guest's that it does not know of yet. Therefore each says how
 * far the server had applied the client's messages when it was made ("granted_at_seq"), and every access
 * that changes what a lease will answer is remembered with the number of the message it is in.
 */
#ifndef KVMSHIM_LEASE_H
#define KVMSHIM_LEASE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "codec.h"

enum {
    LEASE_LANES = 64,  /* rings of a device that a lease can say something of */
    LEASE_ROOM = 4096, /* addresses of a link that leases are kept for; others are always asked */
    LEASE_WORDS = 6 + 12 * CODEC_MAX_TERMS,
};

/* What a LEASE says. */
struct lease_grant {
    uint32_t rule, term_count;
    uint64_t granted_at_seq; /* all messages up to this had been applied when it was made */
    uint64_t value, until_ns, unaffected, steady;
    struct lease_term terms[CODEC_MAX_TERMS];
};

/* A leased address. */
struct lease {
    _Atomic uint64_t version; /* odd while the words are written; 0: none was granted yet */
    _Atomic uint64_t words[LEASE_WORDS];
    /* from here on: of who serves the guest */
    uint64_t taken; /* the version that grant is a copy of */
    struct lease_grant grant;
    uint64_t suspended; /* not used until the server has settled this message */
    uint64_t last_effect_seq;   /* the last message with an access that changed what it answers */
    bool desynced;        /* the server knows better: not used until it says something new */
    bool high_next;
    uint8_t held_reads; /* reads that the held value still answers */
    uint16_t held;
};

struct lease_range {
    struct lease_range *next;
    uint64_t address, length;
    struct lease *leases; /* NULL: beyond LEASE_ROOM */
    uint8_t space;
};

struct lease_device {
    struct lease_device *next;
    uint32_t device_id;
    struct lease_range *ranges;
    /* of who serves the guest */
    uint64_t posted;              /* the last message with a posted write to the device */
    uint64_t known;               /* bit n: what was last written to lane n is known */
    uint8_t written[LEASE_LANES];
};

struct leases {
    struct lease_device *devices;
    uint64_t kept;
};

/* -- before the link starts -- */

/* NULL when out of memory. */
struct leases *leases_new(void);
void leases_free(struct leases *leases);
/* Addresses of a device that may be leased; 0, or -1 when out of memory. */
int leases_add(struct leases *leases, uint32_t device_id, uint8_t space, uint64_t address,
               uint64_t length);
/* NULL if nothing of the device may be leased. */
struct lease_device *leases_of(struct leases *leases, uint32_t device_id);

/* -- of who reads the stream -- */

/* Takes a LEASE; NULL, or what is wrong with it. settled: what the server has settled so far. */
const char *leases_take(struct leases *leases, const struct message *message, uint64_t settled);

/* -- of who serves the guest -- */

enum lease_answer {
    LEASE_ASK,      /* the server is to be asked */
    LEASE_ANSWERED, /* the value is good and nobody needs to hear of it */
    LEASE_POST,     /* the value is good; the read is to be posted, then lease_sent() called */
};

struct lease *lease_at(struct lease_device *device, uint8_t space, uint64_t address);
/* Answers a read of one byte at VM time now_ns. settled must have been loaded before the call. */
int lease_read(struct lease_device *device, struct lease *lease, uint64_t settled, uint64_t now_ns,
               uint8_t *value);

/* A write of the guest's; lane is that of its first byte. */
struct lease_write {
    uint64_t lane, time_ns, settled;
    uint8_t size, value; /* the value is of interest only if size is 1 */
};
/* Before a write is posted; lease_sent() follows. */
void lease_write_posted(struct lease_device *device, const struct lease_write *write);
/* Before an access that waits for its answer; lease_sent() follows. */
void lease_write_waits(struct lease_device *device, const struct lease_write *write);
void lease_read_waits(struct lease_device *device, uint8_t space, uint64_t address, uint8_t size);
/* The access just announced is in message seq or an earlier one. */
void lease_sent(struct lease_device *device, uint64_t seq, bool posted_write);

/* -- the function of time -- */

/* The value at a VM time (16 bits of it for a PAIR); false if the lease does not say. */
bool lease_value(const struct lease_grant *grant, uint64_t now_ns, uint64_t *value);

#endif
