#include "link/lease.h"

/* A number that no message has: the access is announced but its message has none yet. */
#define NOT_SENT_YET UINT64_MAX

/* -- the function of time ------------------------------------------------------------------ */

static uint64_t term_value(const struct lease_term *term, uint64_t clock)
{
    uint64_t n = clock - term->origin;
    if (term->period)
        n %= term->period;
    uint64_t v = n < term->length ? term->start + term->step * n
                                  : term->start2 + term->step2 * (n - term->length);
    return ((v & term->wrap) >> term->shift) & term->mask;
}

bool lease_value(const struct lease_grant *grant, uint64_t now_ns, uint64_t *value)
{
    if (grant->until_ns && now_ns >= grant->until_ns)
        return false;
    uint64_t sum = grant->value;
    for (uint32_t i = 0; i < grant->term_count; i++) {
        const struct lease_term *term = &grant->terms[i];
        uint64_t clock = (uint64_t)((unsigned __int128)now_ns * term->num / term->den);
        if (clock < term->origin)
            return false;
        sum |= term_value(term, clock);
    }
    *value = sum;
    return true;
}

/* -- what the server has said last ------------------------------------------------------------ */

static uint64_t get_word(struct lease *lease, size_t at)
{
    return atomic_load_explicit(&lease->words[at], memory_order_acquire);
}

static struct lease_term get_term(struct lease *lease, size_t at)
{
    uint64_t words[12];
    for (size_t i = 0; i < 12; i++)
        words[i] = get_word(lease, at + i);
    return (struct lease_term){ words[0], words[1], words[2], words[3], words[4], words[5],
                                words[6], words[7], words[8], words[9], (uint8_t)words[10],
                                words[11] };
}

/* Copies the words; false if they were written meanwhile. */
static bool get_grant(struct lease *lease, uint64_t version, struct lease_grant *grant)
{
    uint64_t head = get_word(lease, 0);
    grant->rule = (uint32_t)head;
    grant->term_count = (uint32_t)(head >> 32);
    grant->granted_at_seq = get_word(lease, 1);
    grant->value = get_word(lease, 2);
    grant->until_ns = get_word(lease, 3);
    grant->unaffected = get_word(lease, 4);
    grant->steady = get_word(lease, 5);
    for (uint32_t i = 0; i < grant->term_count; i++)
        grant->terms[i] = get_term(lease, 6 + 12 * i);
    return atomic_load_explicit(&lease->version, memory_order_relaxed) == version;
}

static bool changes_when_read(const struct lease *lease)
{
    return lease->grant.rule & (LEASE_PAIR | LEASE_HOLD);
}

/* Whether a grant judges writes otherwise than the one before it did. */
static bool rules_differ(const struct lease_grant *a, const struct lease_grant *b)
{
    return a->unaffected != b->unaffected || a->steady != b->steady ||
           ((a->rule ^ b->rule) & ~(uint32_t)LEASE_HIGH_NEXT);
}

static void adopt(const struct lease_device *device, struct lease *lease,
                  const struct lease_grant *fresh)
{
    if (device->posted > fresh->granted_at_seq && rules_differ(fresh, &lease->grant)) {
        /* Writes on their way were judged by the old rules: they may matter by the new ones. */
        lease->suspended = device->posted;
        if (lease->last_effect_seq < device->posted)
            lease->last_effect_seq = device->posted;
    }
    lease->grant = *fresh;
    lease->high_next = fresh->rule & LEASE_HIGH_NEXT;
    lease->desynced = changes_when_read(lease) && lease->last_effect_seq > fresh->granted_at_seq;
}

/* Takes over what the server has said last. A held value is not the server's to change. */
static void refresh(const struct lease_device *device, struct lease *lease)
{
    while (lease->held_reads == 0) {
        uint64_t version = atomic_load_explicit(&lease->version, memory_order_acquire);
        struct lease_grant fresh;
        if (version == lease->taken)
            return;
        if (version & 1 || !get_grant(lease, version, &fresh))
            continue; /* being written: a matter of nanoseconds */
        lease->taken = version;
        adopt(device, lease, &fresh);
    }
}

static bool usable_value(const struct lease *lease, uint64_t settled, uint64_t now_ns,
                         uint64_t *value)
{
    return lease->grant.rule & LEASE_GRANTED && !lease->desynced && settled >= lease->suspended &&
           lease_value(&lease->grant, now_ns, value);
}

int lease_read(struct lease_device *device, struct lease *lease, uint64_t settled, uint64_t now_ns,
               uint8_t *value)
{
    uint64_t whole = lease->held;
    refresh(device, lease);
    if (lease->held_reads)
        lease->held_reads--;
    else if (!usable_value(lease, settled, now_ns, &whole))
        return LEASE_ASK;
    bool pair = lease->grant.rule & LEASE_PAIR;
    *value = (uint8_t)(pair && lease->high_next ? whole >> 8 : whole);
    if (pair)
        lease->high_next = !lease->high_next;
    if (!changes_when_read(lease))
        return LEASE_ANSWERED;
    lease->last_effect_seq = NOT_SENT_YET;
    return LEASE_POST;
}

/* -- writes ------------------------------------------------------------------------------------ */

typedef void on_write(struct lease *lease, const struct lease_write *write, bool repeated);

static bool is_hold(const struct lease *lease, const struct lease_write *write)
{
    uint32_t rule = lease->grant.rule;
    return rule & LEASE_HOLD && write->size == 1 && write->lane == (rule >> 16 & 0xff) &&
           (write->value & (rule >> 8 & 0xff)) == (rule & 0xff);
}

static bool matters(const struct lease *lease, const struct lease_write *write, bool repeated)
{
    if (write->size != 1 || write->lane >= LEASE_LANES)
        return true;
    uint64_t bit = 1ull << write->lane;
    return !(lease->grant.unaffected & bit || (repeated && lease->grant.steady & bit));
}

static void drop_held(struct lease *lease)
{
    lease->held_reads = 0;
    if (changes_when_read(lease) && lease->last_effect_seq > lease->grant.granted_at_seq)
        lease->desynced = true; /* the server says it anew, because it knows of those reads */
}

static void hold(struct lease *lease, const struct lease_write *write)
{
    uint64_t value;
    lease->last_effect_seq = NOT_SENT_YET;
    if (lease->held_reads)
        return;
    if (usable_value(lease, write->settled, write->time_ns, &value)) {
        lease->held = (uint16_t)value;
        lease->held_reads = lease->grant.rule & LEASE_PAIR ? 2 : 1;
    } else {
        lease->desynced = true; /* the device holds something, nobody here knows what */
    }
}

static void on_posted_write(struct lease *lease, const struct lease_write *write, bool repeated)
{
    if (!(lease->grant.rule & LEASE_GRANTED))
        return;
    if (is_hold(lease, write)) {
        hold(lease, write);
    } else if (matters(lease, write, repeated)) {
        lease->suspended = NOT_SENT_YET;
        drop_held(lease);
    }
}

/* The server says what has changed before it answers; but it takes holding for granted. */
static void on_waiting_write(struct lease *lease, const struct lease_write *write, bool repeated)
{
    if (!(lease->grant.rule & LEASE_GRANTED))
        return;
    if (is_hold(lease, write)) {
        lease->held_reads = 0;
        lease->desynced = true;
        lease->last_effect_seq = NOT_SENT_YET;
    } else if (matters(lease, write, repeated)) {
        drop_held(lease);
    }
}

/* Notes what is written to the rings; whether it repeats what was written there last. */
static bool note_write(struct lease_device *device, const struct lease_write *write)
{
    if (write->size != 1) {
        for (uint64_t lane = write->lane; lane < LEASE_LANES && lane < write->lane + write->size;
             lane++)
            device->known &= ~(1ull << lane);
        return false;
    }
    if (write->lane >= LEASE_LANES)
        return false;
    uint64_t bit = 1ull << write->lane;
    bool repeated = device->known & bit && device->written[write->lane] == write->value;
    device->known |= bit;
    device->written[write->lane] = write->value;
    return repeated;
}

static void each_lease(struct lease_device *device, const struct lease_write *write, on_write *act)
{
    bool repeated = note_write(device, write);
    for (struct lease_range *range = device->ranges; range; range = range->next)
        for (uint64_t i = 0; range->leases && i < range->length; i++) {
            refresh(device, &range->leases[i]);
            act(&range->leases[i], write, repeated);
        }
}

void lease_write_posted(struct lease_device *device, const struct lease_write *write)
{
    each_lease(device, write, on_posted_write);
}

void lease_write_waits(struct lease_device *device, const struct lease_write *write)
{
    each_lease(device, write, on_waiting_write);
}

void lease_read_waits(struct lease_device *device, uint8_t space, uint64_t address, uint8_t size)
{
    for (uint8_t i = 0; i < size; i++) {
        struct lease *lease = lease_at(device, space, address + i);
        if (lease) {
            refresh(device, lease);
            drop_held(lease);
        }
    }
}

static void number(uint64_t *field, uint64_t seq)
{
    if (*field == NOT_SENT_YET)
        *field = seq;
}

void lease_sent(struct lease_device *device, uint64_t seq, bool posted_write)
{
    if (posted_write)
        device->posted = seq;
    for (struct lease_range *range = device->ranges; range; range = range->next)
        for (uint64_t i = 0; range->leases && i < range->length; i++) {
            number(&range->leases[i].suspended, seq);
            number(&range->leases[i].last_effect_seq, seq);
        }
}
