#include "vcpu/unclaimed.h"

#include <string.h>
#include <sys/ioctl.h>

#include "vcpu/vcpu.h"

enum {
    PAGE_SHIFT = 12,
    POST_PORT = 0x80,
    PORTS = 0, /* the space */
    MEMORY = 1,
};

static uint64_t key_of(const struct vcpu_access *access)
{
    return access->space == PORTS ? access->address
                                  : access->address >> PAGE_SHIFT | (uint64_t)MEMORY << 63;
}

/* Where the guest is, as its code counts addresses; false if that can't be told. */
static bool locate(struct unclaimed *unclaimed, const struct vcpu *vcpu, uint64_t *code)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    if (vcpu->emulated_code) {
        *code = *vcpu->emulated_code;
        return true;
    }
    if (vcpu->fd < 0 || unclaimed->located == UNCLAIMED_LOCATED)
        return false;
    unclaimed->located++;
    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return false;
    *code = sregs.cs.base + regs.rip;
    return true;
}

static uint32_t lightest(const struct unclaimed *unclaimed)
{
    uint32_t found = 0;
    for (uint32_t i = 1; i < unclaimed->count; i++)
        if (unclaimed->places[i].weight < unclaimed->places[found].weight)
            found = i;
    return found;
}

/* Room for a new place: free, or that of the one with the least weight. */
static struct unclaimed_place *make_room(struct unclaimed *unclaimed, uint64_t key)
{
    uint64_t weight = 0;
    uint32_t at = unclaimed->count;
    if (at < UNCLAIMED_PLACES) {
        unclaimed->count++;
    } else {
        at = lightest(unclaimed);
        weight = unclaimed->places[at].weight;
        unclaimed->forgotten += unclaimed->places[at].reads + unclaimed->places[at].writes;
    }
    unclaimed->keys[at] = key;
    unclaimed->recent = at;
    unclaimed->places[at] = (struct unclaimed_place){ .weight = weight };
    return &unclaimed->places[at];
}

static struct unclaimed_place *find(struct unclaimed *unclaimed, uint64_t key)
{
    if (unclaimed->count && unclaimed->keys[unclaimed->recent] == key)
        return &unclaimed->places[unclaimed->recent];
    for (uint32_t i = 0; i < unclaimed->count; i++) {
        if (unclaimed->keys[i] == key) {
            unclaimed->recent = i;
            return &unclaimed->places[i];
        }
    }
    return NULL;
}

static struct unclaimed_access seen(const struct vcpu *vcpu, const struct vcpu_access *access)
{
    struct unclaimed_access one = {
        .time_ns = control_time_ns(vcpu->control),
        .address = access->address,
        .direction = access->direction,
        .size = access->size,
    };
    size_t size = access->size < sizeof one.value ? access->size : sizeof one.value;
    if (access->elements)
        memcpy(&one.value, access->data + (size_t)(access->elements - 1) * access->size, size);
    return one;
}

static void note_post_codes(struct unclaimed *unclaimed, const struct vcpu_access *access)
{
    for (uint32_t i = 0; i < access->elements; i++)
        unclaimed->post_codes[unclaimed->post_count++ % UNCLAIMED_POST_CODES] =
            access->data[(size_t)i * access->size];
}

void unclaimed_note(struct unclaimed *unclaimed, const struct vcpu *vcpu,
                    const struct vcpu_access *access)
{
    if (access->space != PORTS && access->space != MEMORY)
        return;
    uint64_t key = key_of(access), end = access->address + access->size - 1;
    struct unclaimed_place *place = find(unclaimed, key);
    struct unclaimed_access one = seen(vcpu, access);
    if (!place) {
        place = make_room(unclaimed, key);
        place->space = access->space;
        place->low = access->address;
        place->first = one;
        place->has_code = locate(unclaimed, vcpu, &place->code);
    }
    place->low = access->address < place->low ? access->address : place->low;
    place->high = end > place->high ? end : place->high;
    place->last = one;
    place->weight += access->elements;
    *(access->direction == DIRECTION_OUT ? &place->writes : &place->reads) += access->elements;
    if (access->space == PORTS && access->direction && access->address == POST_PORT)
        note_post_codes(unclaimed, access);
}
