/*
 * The loop that runs a virtual CPU: KVM_RUN, look the access up, serve it, enter again.
 *
 * It comes back to its caller only for what C can't do: an access to a device placed in this
 * process, the end of the guest, an error, a request to stop.
 */
#ifndef KVMSHIM_VCPU_H
#define KVMSHIM_VCPU_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#include "control.h"
#include "link.h"

/* Where accesses to a port or memory range go. */
enum { ROUTE_NONE, ROUTE_LOCAL, ROUTE_REMOTE };

enum {
    ROUTE_PORTS = 65536,
    ROUTE_ENTRIES = 4096,
    ROUTE_RANGES = 256,
    ROUTE_LINKS = 64,
};

struct route_entry {
    uint8_t kind;
    uint8_t posted; /* writes may be posted */
    uint16_t link;
    uint32_t device_id;
};

struct route_range {
    uint64_t base, size;
    uint16_t entry;
};

struct routes {
    uint16_t port[ROUTE_PORTS]; /* index of an entry; entry 0 is ROUTE_NONE */
    struct route_entry entries[ROUTE_ENTRIES];
    uint32_t entry_count;
    struct route_range ranges[ROUTE_RANGES];
    uint32_t range_count;
    struct link *links[ROUTE_LINKS];
};

struct routes *routes_new(void);
void routes_free(struct routes *routes);
/* Makes an entry for a device (or finds the same one); its index, or -1 when there is no room. */
int routes_entry(struct routes *routes, struct route_entry entry);
int routes_add_range(struct routes *routes, uint64_t base, uint64_t size, uint16_t entry);

/* Why vcpu_run returned. */
enum vcpu_exit {
    VCPU_STOPPED,       /* CONTROL_STOP or CONTROL_PAUSE */
    VCPU_EVENT,         /* an EVENT message is in a link's inbox */
    VCPU_LINK_LOST,     /* see the links' states */
    VCPU_LOCAL,         /* vcpu.access is for a device in this process; call again when served */
    VCPU_SHUTDOWN,      /* KVM_EXIT_SHUTDOWN: triple fault */
    VCPU_HALTED,        /* HLT with interrupts off: nothing can wake it */
    VCPU_ENTRY_FAILED,  /* KVM_EXIT_FAIL_ENTRY; vcpu.detail is the hardware's reason */
    VCPU_INTERNAL,      /* KVM_EXIT_INTERNAL_ERROR; vcpu.detail is the suberror */
    VCPU_UNKNOWN_EXIT,  /* an exit that this client does not serve; vcpu.detail is its number */
    VCPU_FAILED,        /* KVM_RUN failed; vcpu.detail is the errno */
    VCPU_REFUSED,       /* a server answered a request with a status other than OK */
};

struct vcpu_access {
    uint8_t space, direction, size;
    uint32_t elements;
    uint64_t address, time_ns;
    uint8_t *data;
};

struct vcpu_mark {
    uint64_t time_ns; /* CLOCK_MONOTONIC */
    uint16_t port;
};

struct vcpu {
    int fd;
    struct kvm_run *run;
    struct control *control;
    struct routes *routes;
    uint64_t detail;
    struct vcpu_access access;
    uint64_t exits, port_exits, memory_exits, unclaimed;
    uint16_t last_link;     /* the link of the last access; ROUTE_LINKS: this process */
    uint32_t piece;         /* how far an access is that is served byte by byte */
    /* for benchmarks: when each port exit was, while there is room */
    struct vcpu_mark *marks;
    size_t mark_count, mark_room;
};

int vcpu_run(struct vcpu *vcpu);
/* Completes an access that was served but not yet seen by the guest; needed before reading
 * registers. 0, or -1 with errno set. */
int vcpu_complete(struct vcpu *vcpu);

#endif
