#include "link/lease.h"

#include <stdlib.h>
#include <string.h>

enum {
    RULE_FLAGS = LEASE_GRANTED | LEASE_PAIR | LEASE_HIGH_NEXT | LEASE_HOLD,
    RULE_HOLD_BITS = 0xffffff,
    MAX_SHIFT = 63,
};

/* -- what may be leased -------------------------------------------------------------------- */

struct leases *leases_new(void)
{
    return calloc(1, sizeof(struct leases));
}

static void free_device(struct lease_device *device)
{
    while (device->ranges) {
        struct lease_range *range = device->ranges;
        device->ranges = range->next;
        free(range->leases);
        free(range);
    }
    free(device);
}

void leases_free(struct leases *leases)
{
    if (!leases)
        return;
    while (leases->devices) {
        struct lease_device *device = leases->devices;
        leases->devices = device->next;
        free_device(device);
    }
    free(leases);
}

struct lease_device *leases_of(struct leases *leases, uint32_t device_id)
{
    struct lease_device *device = leases ? leases->devices : NULL;
    while (device && device->device_id != device_id)
        device = device->next;
    return device;
}

static struct lease_device *add_device(struct leases *leases, uint32_t device_id)
{
    struct lease_device *device = calloc(1, sizeof *device);
    if (!device)
        return NULL;
    device->device_id = device_id;
    device->next = leases->devices;
    leases->devices = device;
    return device;
}

int leases_add(struct leases *leases, uint32_t device_id, uint8_t space, uint64_t address,
               uint64_t length)
{
    struct lease_device *device = leases_of(leases, device_id);
    if (!device && !(device = add_device(leases, device_id)))
        return -1;
    struct lease_range *range = calloc(1, sizeof *range);
    if (!range)
        return -1;
    range->space = space;
    range->address = address;
    range->length = length;
    if (length <= LEASE_ROOM - leases->kept) {
        range->leases = calloc(length, sizeof *range->leases);
        leases->kept += length;
    }
    range->next = device->ranges;
    device->ranges = range;
    return 0;
}

static struct lease_range *range_at(struct lease_device *device, uint8_t space, uint64_t address)
{
    for (struct lease_range *range = device->ranges; range; range = range->next)
        if (range->space == space && address - range->address < range->length)
            return range;
    return NULL;
}

struct lease *lease_at(struct lease_device *device, uint8_t space, uint64_t address)
{
    struct lease_range *range = range_at(device, space, address);
    return range && range->leases ? &range->leases[address - range->address] : NULL;
}

/* -- a LEASE comes --------------------------------------------------------------------------- */

static void put_word(struct lease *lease, size_t at, uint64_t word)
{
    atomic_store_explicit(&lease->words[at], word, memory_order_release);
}

static void put_term(struct lease *lease, size_t at, const struct lease_term *term)
{
    const uint64_t words[12] = { term->num,   term->den,    term->origin, term->period,
                                 term->length, term->start, term->step,   term->start2,
                                 term->step2, term->wrap,   term->shift,  term->mask };
    for (size_t i = 0; i < 12; i++)
        put_word(lease, at + i, words[i]);
}

static void put_grant(struct lease *lease, const struct lease_grant *grant)
{
    uint64_t version = atomic_load_explicit(&lease->version, memory_order_relaxed);
    atomic_store_explicit(&lease->version, version + 1, memory_order_relaxed);
    put_word(lease, 0, (uint64_t)grant->term_count << 32 | grant->rule);
    put_word(lease, 1, grant->granted_at_seq);
    put_word(lease, 2, grant->value);
    put_word(lease, 3, grant->until_ns);
    put_word(lease, 4, grant->unaffected);
    put_word(lease, 5, grant->steady);
    for (uint32_t i = 0; i < grant->term_count; i++)
        put_term(lease, 6 + 12 * i, &grant->terms[i]);
    atomic_store_explicit(&lease->version, version + 2, memory_order_release);
}

static const char *take_terms(struct lease_grant *grant, const struct message *message)
{
    if (message->length > CODEC_MAX_TERMS)
        return "a lease with too many terms";
    grant->term_count = message->length;
    for (uint32_t i = 0; i < message->length; i++) {
        struct lease_term *term = &grant->terms[i];
        if (codec_decode_term(message->data + i * CODEC_TERM_BYTES, term) < 0)
            return "a lease's term that can't be decoded";
        if (term->den == 0)
            return "a lease's clock divided by zero";
        if (term->shift > MAX_SHIFT)
            return "a lease's shift above 63";
    }
    return NULL;
}

const char *leases_take(struct leases *leases, const struct message *message, uint64_t settled)
{
    struct lease_device *device = leases_of(leases, message->device_id);
    struct lease_range *range =
        device ? range_at(device, message->space, message->address) : NULL;
    if (!range)
        return "a lease for an address that may not be leased";
    if (message->rule & ~(uint32_t)(RULE_FLAGS | RULE_HOLD_BITS))
        return "a lease with rules that do not exist";
    if (message->rule & LEASE_HOLD && (message->rule >> 16 & 0xff) >= LEASE_LANES)
        return "a lease held by a lane above 63";
    /* It may stand amid the message that it says is applied: only what is before that surely is. */
    uint64_t before = message->ack ? message->ack - 1 : 0;
    struct lease_grant grant = {
        .rule = message->rule,
        .granted_at_seq = settled > before ? settled : before,
        .value = message->value,
        .until_ns = message->until_ns,
        .unaffected = message->unaffected,
        .steady = message->steady,
    };
    const char *wrong = take_terms(&grant, message);
    if (!wrong && range->leases)
        put_grant(&range->leases[message->address - range->address], &grant);
    return wrong;
}
