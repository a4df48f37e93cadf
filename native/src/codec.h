/*
 * Fixed-width messages: the same bytes as devserver/protocol/codec.py makes (docs/protocol.md).
 *
 * A message is a msgpack array of a type and fields; each field has one width, so each has a
 * constant offset. One flat struct holds any message; a table per type says which of its members
 * are on the wire, in which order.
 */
#ifndef KVMSHIM_CODEC_H
#define KVMSHIM_CODEC_H

#include <stddef.h>
#include <stdint.h>

enum {
    MESSAGE_HELLO = 1,
    MESSAGE_WELCOME = 2,
    MESSAGE_ATTACH = 3,
    MESSAGE_ATTACHED = 4,
    MESSAGE_ERROR = 5,
    MESSAGE_BUSY = 6,
    MESSAGE_PING = 7,
    MESSAGE_PONG = 8,
    MESSAGE_ACK = 9,
    MESSAGE_REQUEST = 16,
    MESSAGE_BATCH = 17,
    MESSAGE_FEED = 18,
    MESSAGE_CLOCK = 19,
    MESSAGE_DETACH = 20,
    MESSAGE_SAVE = 21,
    MESSAGE_ADD = 22,
    MESSAGE_FEEDBACK = 32,
    MESSAGE_FINISH = 33,
    MESSAGE_INTERRUPT = 34,
    MESSAGE_EMIT = 35,
    MESSAGE_CONSUMED = 36,
    MESSAGE_EVENT = 37,
    MESSAGE_LEASE = 38,
    MESSAGE_STATE = 39,
    MESSAGE_ADDED = 40,
};

/* Bounds; devserver/protocol/limits.py has the same. */
enum {
    CODEC_MAX_FRAME = 1 << 20,
    CODEC_MAX_DATA = 4096,
    CODEC_MAX_FEED = 4096,
    CODEC_MAX_EMIT = 16384,
    CODEC_MAX_WRITES = 1024,
    CODEC_MAX_TEXT = 16384,
    CODEC_MAX_TERMS = 4,
    CODEC_MAX_STATE = 1 << 19,
    CODEC_WRITE_BYTES = 39,
    CODEC_TERM_BYTES = 102,
    CODEC_MAX_HEADER = 128, /* no message is longer without its tail */
};

/* An access: which way, and in which address space (docs/protocol.md, Values). */
enum { DIRECTION_IN = 0, DIRECTION_OUT = 1 };
enum {
    SPACE_PORT = 0,
    SPACE_MEMORY = 1,
    SPACE_BUS = 2, /* between processor and interrupt controllers that are a device (vcpu/irqchip.h) */
};

enum {
    CODEC_TRUNCATED = -1,
    CODEC_MALFORMED = -2,
    CODEC_UNKNOWN = -3,
    CODEC_TOO_LONG = -4,
};

/* Flags of a LEASE's rule; below them its lane, mask and match of a hold. */
enum {
    LEASE_GRANTED = 1 << 24,
    LEASE_PAIR = 1 << 25,
    LEASE_HIGH_NEXT = 1 << 26,
    LEASE_HOLD = 1 << 27,
};

struct message {
    uint8_t type;
    uint64_t seq;
    uint64_t ack; /* "applied" in the server's messages */
    uint32_t server_id;
    uint32_t vm_id;
    uint8_t hypervisor;
    uint32_t client_id;
    uint32_t device_id;
    uint8_t direction;
    uint8_t space;
    uint64_t address;
    uint8_t size;
    uint32_t elements;
    uint64_t time_ns;
    uint64_t request;
    uint8_t status;
    uint32_t line;
    uint8_t level;
    uint64_t number;
    uint8_t channel;
    uint8_t end;
    uint64_t total;
    uint8_t kind;
    uint64_t value;
    uint8_t running;
    uint8_t keep, remove;
    uint64_t token;
    uint32_t rule;
    uint64_t until_ns, unaffected, steady;
    const uint8_t *data; /* the tail; of a BATCH and a LEASE: its encoded records */
    uint32_t length;     /* bytes of the tail; of a BATCH and a LEASE: number of records */
};

/* A write, or a read that was answered from a lease (its value is 0). */
struct posted_write {
    uint32_t device_id;
    uint8_t direction;
    uint8_t space;
    uint64_t address;
    uint8_t size;
    uint64_t time_ns;
    uint64_t value;
};

/* Bytes that the message takes, or a CODEC_ error. */
long codec_size(const struct message *message);
/* Writes the message to out (of codec_size bytes); returns its size or a CODEC_ error. */
long codec_encode(const struct message *message, uint8_t *out);
/*
 * Reads the message at in; returns its size or a CODEC_ error. message->data points into in.
 * CODEC_UNKNOWN is also what a session message (a type and a map) gives.
 */
long codec_decode(const uint8_t *in, size_t length, struct message *message);

/* One summand of a leased function of VM time; devserver/protocol/messages.py says what it means. */
struct lease_term {
    uint64_t num, den, origin, period, length, start, step, start2, step2, wrap;
    uint8_t shift;
    uint64_t mask;
};

/* One posted access of a batch: CODEC_WRITE_BYTES bytes. */
void codec_encode_write(const struct posted_write *write, uint8_t *out);
int codec_decode_write(const uint8_t *in, struct posted_write *write);

/* One term of a lease: CODEC_TERM_BYTES bytes. */
void codec_encode_term(const struct lease_term *term, uint8_t *out);
int codec_decode_term(const uint8_t *in, struct lease_term *term);

#endif
