/*
 * The loop that runs a virtual CPU: KVM_RUN, serve the access (access.h), enter again.
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

#include "vcpu/coalesced.h"
#include "vm/control.h"
#include "vcpu/halts.h"
#include "vcpu/routes.h"
#include "vcpu/unclaimed.h"

/* Why vcpu_run returned. */
enum vcpu_exit {
    VCPU_STOPPED,       /* CONTROL_STOP */
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
    VCPU_PAUSED,        /* CONTROL_PAUSE; vcpu_quiesce() is to be called next */
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
    uint64_t leased;           /* reads answered from a lease */
    uint64_t coalesced_writes; /* writes that came through the ring */
    uint64_t waited_writes;    /* writes to be posted that waited (halts.h) */
    struct unclaimed *unclaimed_places; /* NULL: they are counted only */
    const uint64_t *emulated_code; /* where an emulator keeps the guest's place; NULL: ask KVM */
    struct coalesced *coalesced; /* NULL: KVM has no ring, or no device uses it */
    struct halts halts;
    uint16_t last_link;     /* the link of the last access; ROUTE_LINKS: this process */
    /* with interrupt controllers outside the kernel (irqchip.h) */
    uint8_t wire, vector;
    bool acknowledging;     /* vector is to be injected as soon as it is there */
    bool halted;            /* HLT, and no interrupt since */
    uint32_t piece;         /* how far an access is that is served byte by byte */
    /* for benchmarks: when each port exit was, while there is room */
    struct vcpu_mark *marks;
    size_t mark_count, mark_room;
};

int vcpu_run(struct vcpu *vcpu);
/*
 * Brings all writes that KVM has taken on their way to their devices; to be called while the vCPU
 * does not run. 0, or -1 if a lost link or a stop forbids it.
 */
int vcpu_drain(struct vcpu *vcpu);
/*
 * After VCPU_PAUSED: has KVM finish what the guest left for, so that the vCPU's state is that of an
 * instruction boundary, and brings its writes on their way. VCPU_PAUSED, or why there is no going on;
 * after VCPU_LOCAL it is to be called again, as vcpu_run is.
 */
int vcpu_quiesce(struct vcpu *vcpu);
/* Completes an access that was served but not yet seen by the guest; needed before reading
 * registers. 0, or -1 with errno set. */
int vcpu_complete(struct vcpu *vcpu);

/* Steps of the loop that are the same without KVM (emulated.h). */

/* Why the vCPU is wanted out of the guest; VCPU_CONTINUE (access.h) if it is not. */
int vcpu_wanted(struct vcpu *vcpu);
/* Notes when an access to a port was, if that was asked for. */
void vcpu_mark(struct vcpu *vcpu, uint16_t port);
/* The guest may outrun Python, which takes the output: lets it catch up. */
void vcpu_wait_for_inboxes(struct vcpu *vcpu);

#endif
