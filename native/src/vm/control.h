/*
 * One VM's clock and the way to stop its vCPUs from other threads.
 *
 * A vCPU is in one of two places where it can't look at a flag: inside KVM_RUN, or asleep waiting
 * for a link. control_raise() reaches both: it sets immediate_exit before it signals (a signal that
 * arrives just before KVM_RUN would be lost otherwise; Documentation/virt/kvm/api.rst, KVM_RUN),
 * and it makes the stop event readable, which every wait polls.
 */
#ifndef KVMSHIM_CONTROL_H
#define KVMSHIM_CONTROL_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vm/lines.h"

/* Why a vCPU is wanted out of the guest; bits of control.pending. */
enum {
    CONTROL_STOP = 1,  /* end now, abandoning an access that waits for its feedback */
    CONTROL_PAUSE = 2, /* leave at the next instruction boundary */
    CONTROL_EVENT = 4, /* a link brought an event that concerns the VM */
    CONTROL_LINK = 8,  /* a link was lost */
    CONTROL_PROBE = 16, /* look whether the vCPU is halted for good, then go on */
    CONTROL_LINES = 32, /* interrupt controllers outside the kernel have something for it */
};

struct control {
    int vm_fd;
    int stop_fd; /* eventfd, readable while STOP or LINK is pending */
    _Atomic uint32_t pending;
    _Atomic int64_t origin_ns; /* CLOCK_MONOTONIC at VM time 0 */
    _Atomic int64_t stopped_ns; /* VM time while the clock stands still; -1 while it runs */
    pthread_mutex_t lock;
    struct lines lines;
    /*
     * A thread that looks after a running vCPU idles while nothing can happen there. What may start
     * something counts here, and rouses it.
     */
    _Atomic uint32_t notifications;
    _Atomic bool idling;
    int idle_fd; /* eventfd */
    /* A halted vCPU that no KVM wakes sleeps here; the same things wake it. */
    _Atomic bool sleeping;
    int wake_fd; /* eventfd */
    struct kvm_run *run; /* of the vCPU that is inside control_enter/leave, else NULL */
    pthread_t thread;
};

/* NULL with errno set when out of memory or descriptors. */
struct control *control_new(int vm_fd);
void control_free(struct control *control);

uint64_t control_time_ns(struct control *control);
void control_clock_start(struct control *control);
void control_clock_stop(struct control *control);
/* Only while the clock stands still. */
void control_clock_set(struct control *control, uint64_t time_ns);

void control_raise(struct control *control, uint32_t reason);
void control_clear(struct control *control, uint32_t reasons);
uint32_t control_pending(struct control *control);

/* Something may have started the vCPU: an interrupt line changed, or it is about to run. */
void control_notify(struct control *control);

/* How often something was notified. */
uint32_t control_notifications(struct control *control);
/*
 * The vCPU of the calling thread sleeps until it is wanted or something is notified; not at all if
 * that was after control_notifications() gave notifications.
 */
void control_sleep(struct control *control, uint32_t notifications);

/* A source (a link's, or 0: the client's own devices) drives a line; 0, or -1 and errno. */
int control_line(struct control *control, unsigned source, uint32_t line, bool level);
/* Holds the lines while a device moves, or lets them go (lines.h). */
int control_hold_lines(struct control *control, bool hold);
/* The interrupt controllers are a device (irqchip.h); to be said before the VM runs. */
void control_userspace_irqchip(struct control *control);
/* Whether line changes are queued for the userspace irqchip. */
bool control_lines_pending(struct control *control);
/* No link drives a line any more; the lines are held. */
void control_forget_links(struct control *control);

/* The calling thread is about to run a vCPU, or is done with it. */
void control_enter(struct control *control, struct kvm_run *run);
void control_leave(struct control *control);

int64_t monotonic_ns(void);

#endif
