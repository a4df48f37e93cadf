#include "vcpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

enum { CARRY_ON = -1 }; /* beside the vcpu_exit values */

/* -- routes ------------------------------------------------------------------------------- */

struct routes *routes_new(void)
{
    struct routes *routes = calloc(1, sizeof *routes);
    if (routes)
        routes->entry_count = 1;
    return routes;
}

void routes_free(struct routes *routes)
{
    free(routes);
}

int routes_entry(struct routes *routes, struct route_entry entry)
{
    for (uint32_t i = 1; i < routes->entry_count; i++) {
        const struct route_entry *old = &routes->entries[i];
        if (old->kind == entry.kind && old->posted == entry.posted &&
            old->link == entry.link && old->device_id == entry.device_id)
            return (int)i;
    }
    if (routes->entry_count == ROUTE_ENTRIES)
        return -1;
    routes->entries[routes->entry_count] = entry;
    return (int)routes->entry_count++;
}

int routes_add_range(struct routes *routes, uint64_t base, uint64_t size, uint16_t entry)
{
    if (routes->range_count == ROUTE_RANGES)
        return -1;
    routes->ranges[routes->range_count++] = (struct route_range){ base, size, entry };
    return 0;
}

static uint16_t entry_at(const struct routes *routes, uint8_t space, uint64_t address)
{
    if (space == 0)
        return address < ROUTE_PORTS ? routes->port[address] : 0;
    for (uint32_t i = 0; i < routes->range_count; i++) {
        const struct route_range *range = &routes->ranges[i];
        if (address - range->base < range->size)
            return range->entry;
    }
    return 0;
}

/* The entry that serves the whole access; -1 if its bytes belong to different owners. */
static int entry_of(const struct routes *routes, const struct vcpu_access *access)
{
    uint16_t entry = entry_at(routes, access->space, access->address);
    for (uint8_t i = 1; i < access->size; i++)
        if (entry_at(routes, access->space, access->address + i) != entry)
            return -1;
    bool whole = access->size == 1 || access->size == 2 || access->size == 4 ||
                 access->size == 8;
    return whole || entry == 0 ? entry : -1;
}

/* -- serving one access ------------------------------------------------------------------- */

static int from_link(int result)
{
    switch (result) {
    case 0:
        return CARRY_ON;
    case LINK_STOPPED:
        return VCPU_STOPPED;
    case LINK_REFUSED:
        return VCPU_REFUSED;
    default:
        return VCPU_LINK_LOST;
    }
}

/*
 * A VM's access to one server, or to a device in this process (link ROUTE_LINKS), does not overtake
 * its posted writes to another server.
 */
static int keep_order(struct vcpu *vcpu, uint16_t link)
{
    uint16_t before = vcpu->last_link;
    vcpu->last_link = link;
    bool other = before != link && before < ROUTE_LINKS && vcpu->routes->links[before];
    return other ? link_fence(vcpu->routes->links[before]) : 0;
}

static int serve_remote(struct vcpu *vcpu, const struct route_entry *entry,
                        const struct vcpu_access *access)
{
    struct link *link = vcpu->routes->links[entry->link];
    struct link_access on_wire = {
        .device_id = entry->device_id,
        .direction = access->direction,
        .space = access->space,
        .size = access->size,
        .address = access->address,
        .elements = access->elements,
        .data = access->data,
    };
    int result = keep_order(vcpu, entry->link);
    if (result < 0)
        return from_link(result);
    if (!(entry->posted && access->direction))
        return from_link(link_request(link, &on_wire));
    on_wire.elements = 1;
    for (uint32_t i = 0; i < access->elements && result == 0; i++) {
        result = link_post(link, &on_wire);
        on_wire.data += access->size;
    }
    return from_link(result);
}

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
        return CARRY_ON;
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
        uint16_t entry = entry_at(vcpu->routes, byte.space, byte.address);
        int result = serve_by(vcpu, entry, &byte);
        if (result != CARRY_ON)
            return result;
    }
    vcpu->piece = 0;
    return CARRY_ON;
}

static int serve(struct vcpu *vcpu, const struct vcpu_access *access)
{
    int entry = entry_of(vcpu->routes, access);
    return entry < 0 ? serve_bytes(vcpu, access) : serve_by(vcpu, (uint16_t)entry, access);
}

static struct vcpu_access port_access(struct kvm_run *run)
{
    return (struct vcpu_access){
        .space = 0,
        .direction = run->io.direction,
        .size = run->io.size,
        .elements = run->io.count,
        .address = run->io.port,
        .data = (uint8_t *)run + run->io.data_offset,
    };
}

static struct vcpu_access memory_access(struct kvm_run *run)
{
    return (struct vcpu_access){
        .space = 1,
        .direction = run->mmio.is_write,
        .size = (uint8_t)run->mmio.len,
        .elements = 1,
        .address = run->mmio.phys_addr,
        .data = run->mmio.data,
    };
}

/* -- the loop ----------------------------------------------------------------------------- */

static bool halted_for_good(struct vcpu *vcpu)
{
    struct kvm_mp_state state;
    if (ioctl(vcpu->fd, KVM_GET_MP_STATE, &state) < 0)
        return false;
    return state.mp_state == KVM_MP_STATE_HALTED && !vcpu->run->if_flag;
}

/* KVM_RUN came back without an exit of the guest, or is not to be called: why? */
static int interrupted(struct vcpu *vcpu)
{
    struct control *control = vcpu->control;
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    uint32_t pending = control_pending(control);
    if (pending & CONTROL_EVENT)
        return VCPU_EVENT;
    if (pending & (CONTROL_STOP | CONTROL_PAUSE))
        return VCPU_STOPPED;
    if (pending & CONTROL_LINK)
        return VCPU_LINK_LOST;
    if (pending & CONTROL_PROBE) {
        control_clear(control, CONTROL_PROBE);
        if (halted_for_good(vcpu))
            return VCPU_HALTED;
    }
    return CARRY_ON;
}

static void mark(struct vcpu *vcpu)
{
    if (vcpu->mark_count < vcpu->mark_room)
        vcpu->marks[vcpu->mark_count++] =
            (struct vcpu_mark){ (uint64_t)monotonic_ns(), vcpu->run->io.port };
}

static int on_exit_reason(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    struct vcpu_access access;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        vcpu->port_exits++;
        if (vcpu->marks)
            mark(vcpu);
        access = port_access(run);
        return serve(vcpu, &access);
    case KVM_EXIT_MMIO:
        vcpu->memory_exits++;
        access = memory_access(run);
        return serve(vcpu, &access);
    case KVM_EXIT_SHUTDOWN:
        return VCPU_SHUTDOWN;
    case KVM_EXIT_HLT: /* only without an in-kernel interrupt controller */
        return run->if_flag ? CARRY_ON : VCPU_HALTED;
    case KVM_EXIT_INTR:
        return CARRY_ON;
    case KVM_EXIT_FAIL_ENTRY:
        vcpu->detail = run->fail_entry.hardware_entry_failure_reason;
        return VCPU_ENTRY_FAILED;
    case KVM_EXIT_INTERNAL_ERROR:
        vcpu->detail = run->internal.suberror;
        return VCPU_INTERNAL;
    default:
        vcpu->detail = run->exit_reason;
        return VCPU_UNKNOWN_EXIT;
    }
}

/* The guest outruns Python, which takes the output: let it catch up. */
static void wait_for_inboxes(struct vcpu *vcpu)
{
    for (int i = 0; i < ROUTE_LINKS && vcpu->routes->links[i]; i++) {
        struct link *link = vcpu->routes->links[i];
        while (link_inbox_bytes(link) > LINK_INBOX_HIGH && !control_pending(vcpu->control)) {
            struct timespec millisecond = { .tv_nsec = 1000000 };
            nanosleep(&millisecond, NULL);
        }
    }
}

/* Python has served a byte of an access that is served byte by byte: the rest of it. */
static int resume_pieces(struct vcpu *vcpu)
{
    if (vcpu->piece == 0)
        return CARRY_ON;
    struct vcpu_access access = vcpu->run->exit_reason == KVM_EXIT_MMIO
                                    ? memory_access(vcpu->run) : port_access(vcpu->run);
    return serve_bytes(vcpu, &access);
}

static int run_loop(struct vcpu *vcpu)
{
    int result = resume_pieces(vcpu);
    while (result == CARRY_ON) {
        if (control_pending(vcpu->control) && (result = interrupted(vcpu)) != CARRY_ON)
            break;
        if (ioctl(vcpu->fd, KVM_RUN, 0) < 0) {
            if (errno != EINTR && errno != EAGAIN) {
                vcpu->detail = (uint64_t)errno;
                return VCPU_FAILED;
            }
            result = interrupted(vcpu);
            continue;
        }
        vcpu->exits++;
        result = on_exit_reason(vcpu);
        wait_for_inboxes(vcpu);
    }
    return result;
}

int vcpu_run(struct vcpu *vcpu)
{
    control_enter(vcpu->control, vcpu->run);
    int result = run_loop(vcpu);
    control_leave(vcpu->control);
    return result;
}

int vcpu_complete(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    int result = ioctl(vcpu->fd, KVM_RUN, 0);
    int error = errno;
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    errno = error;
    return result < 0 && error == EINTR ? 0 : -1;
}
