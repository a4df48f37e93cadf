#include "vcpu/access.h"

#include <string.h>

static int from_link(int result)
{
    switch (result) {
    case 0:
        return VCPU_CONTINUE;
    case LINK_STOPPED:
        return VCPU_STOPPED;
    case LINK_REFUSED:
        return VCPU_REFUSED;
    default:
        return VCPU_LINK_LOST;
    }
}

/* -- order --------------------------------------------------------------------------------- */

/* The link whose posted writes an access to another one must not overtake; NULL if none. */
static struct link *link_before(const struct vcpu *vcpu, uint16_t link)
{
    uint16_t before = vcpu->last_link;
    return before != link && before < ROUTE_LINKS ? vcpu->routes->links[before] : NULL;
}

/*
 * A VM's access to one server, or to a device in this process (link ROUTE_LINKS), does not overtake
 * its posted writes to another server.
 */
static int keep_order(struct vcpu *vcpu, uint16_t link)
{
    struct link *before = link_before(vcpu, link);
    vcpu->last_link = link;
    return before ? link_fence(before) : 0;
}

bool access_may_post(struct vcpu *vcpu, const struct vcpu_access *access)
{
    int index = routes_of(vcpu->routes, access);
    if (index < 0 || !access->direction)
        return false;
    const struct route_entry *entry = &vcpu->routes->entries[index];
    if (entry->kind != ROUTE_REMOTE || !entry->posted)
        return false;
    struct link *before = link_before(vcpu, entry->link);
    return (!before || link_is_clear(before)) && link_has_room(vcpu->routes->links[entry->link]);
}

/* -- a server's device ------------------------------------------------------------------------ */

static struct link_access on_wire(const struct route_entry *entry, const struct vcpu_access *access)
{
    return (struct link_access){
        .device_id = entry->device_id,
        .direction = access->direction,
        .space = access->space,
        .size = access->size,
        .address = access->address,
        .elements = access->elements,
        .data = access->data,
    };
}

static uint64_t settled(struct link *link)
{
    return atomic_load_explicit(&link->settled, memory_order_acquire);
}

/* A write, or an element of several, as its device's leases see it. */
static struct lease_write lease_write_of(struct link *link, const struct route_entry *entry,
                                         const struct vcpu_access *access, const uint8_t *data)
{
    return (struct lease_write){
        .lane = access->address - entry->lane_0,
        .time_ns = control_time_ns(link->control),
        .settled = settled(link),
        .size = access->size,
        .value = *data,
    };
}

static int post_write(struct link *link, const struct route_entry *entry,
                      const struct vcpu_access *access)
{
    struct link_access element = on_wire(entry, access);
    int result = 0;
    element.elements = 1;
    for (uint32_t i = 0; i < access->elements && result == 0; i++) {
        uint64_t seq = 0;
        struct lease_write write = lease_write_of(link, entry, access, element.data);
        if (entry->leases)
            lease_write_posted(entry->leases, &write);
        result = link_post_at(link, &element, write.time_ns, &seq);
        if (entry->leases && result == 0)
            lease_sent(entry->leases, seq, true);
        element.data += access->size;
    }
    return result;
}

static void announce(struct link *link, const struct route_entry *entry,
                     const struct vcpu_access *access)
{
    if (!access->direction) {
        lease_read_waits(entry->leases, access->space, access->address, access->size);
        return;
    }
    for (uint32_t i = 0; i < access->elements; i++) {
        struct lease_write write =
            lease_write_of(link, entry, access, access->data + (size_t)i * access->size);
        lease_write_waits(entry->leases, &write);
    }
}

static int request(struct link *link, const struct route_entry *entry,
                   const struct vcpu_access *access)
{
    struct link_access whole = on_wire(entry, access);
    if (entry->leases)
        announce(link, entry, access);
    int result = link_request(link, &whole);
    if (entry->leases)
        lease_sent(entry->leases, atomic_load(&link->sent), false);
    return result;
}

static int post_read(struct link *link, const struct route_entry *entry,
                     const struct vcpu_access *access, uint64_t now_ns)
{
    struct link_access read = on_wire(entry, access);
    uint64_t seq = 0;
    int result = link_post_at(link, &read, now_ns, &seq);
    if (result == 0)
        lease_sent(entry->leases, seq, false);
    return result;
}

/* Answers a read from a lease; false if the server has to be asked. */
static bool from_lease(struct vcpu *vcpu, struct link *link, const struct route_entry *entry,
                       const struct vcpu_access *access, int *result)
{
    if (!entry->leases || access->direction || access->size != 1 || access->elements != 1)
        return false;
    struct lease *lease = lease_at(entry->leases, access->space, access->address);
    uint64_t settled_now = settled(link), now_ns = control_time_ns(link->control);
    int answer = lease ? lease_read(entry->leases, lease, settled_now, now_ns, access->data)
                       : LEASE_ASK;
    if (answer == LEASE_ASK)
        return false;
    vcpu->leased++;
    *result = answer == LEASE_POST ? post_read(link, entry, access, now_ns) : 0;
    return true;
}

static int serve_remote(struct vcpu *vcpu, const struct route_entry *entry,
                        const struct vcpu_access *access)
{
    struct link *link = vcpu->routes->links[entry->link];
    int result = keep_order(vcpu, entry->link);
    if (result < 0)
        return from_link(result);
    if (from_lease(vcpu, link, entry, access, &result))
        return from_link(result);
    if (!entry->posted || !access->direction)
        return from_link(request(link, entry, access));
    if (!halts_wait(&vcpu->halts, vcpu->routes, entry->link))
        return from_link(post_write(link, entry, access));
    vcpu->waited_writes++;
    return from_link(request(link, entry, access));
}

/* -- any device ------------------------------------------------------------------------------- */

static int serve_by(struct vcpu *vcpu, uint16_t index, const struct vcpu_access *access)
{
    const struct route_entry *entry = &vcpu->routes->entries[index];
    switch (entry->kind) {
    case ROUTE_REMOTE:
        return serve_remote(vcpu, entry, access);
    case ROUTE_LOCAL: {
        int result = keep_order(vcpu, ROUTE_LINKS);
        if (result < 0)
            return from_link(result);
        vcpu->access = *access;
        vcpu->access.time_ns = control_time_ns(vcpu->control);
        return VCPU_LOCAL;
    }
    default:
        vcpu->unclaimed++;
        if (!access->direction)
            memset(access->data, 0xff, (size_t)access->size * access->elements);
        if (vcpu->unclaimed_places)
            unclaimed_note(vcpu->unclaimed_places, vcpu, access);
        return VCPU_CONTINUE;
    }
}

/*
 * An access whose bytes belong to different owners goes byte by byte, as a bus narrower than the
 * access would do it. vcpu->piece remembers how far it is while Python serves a local byte.
 */
static int serve_bytes(struct vcpu *vcpu, const struct vcpu_access *access)
{
    uint32_t bytes = access->size * access->elements;
    while (vcpu->piece < bytes) {
        uint32_t at = vcpu->piece++;
        struct vcpu_access byte = *access;
        byte.address += at % access->size;
        byte.size = 1;
        byte.elements = 1;
        byte.data += at;
        uint16_t entry = routes_at(vcpu->routes, byte.space, byte.address);
        int result = serve_by(vcpu, entry, &byte);
        if (result != VCPU_CONTINUE)
            return result;
    }
    vcpu->piece = 0;
    return VCPU_CONTINUE;
}

int access_serve(struct vcpu *vcpu, const struct vcpu_access *access)
{
    int entry = routes_of(vcpu->routes, access);
    return entry < 0 ? serve_bytes(vcpu, access) : serve_by(vcpu, (uint16_t)entry, access);
}

int access_serve_rest(struct vcpu *vcpu, const struct vcpu_access *access)
{
    return vcpu->piece ? serve_bytes(vcpu, access) : VCPU_CONTINUE;
}
