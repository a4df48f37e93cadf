/*
 * The interrupt lines of one VM. Devices on several servers, and in the client, may drive one line:
 * it is high while any of these sources holds it high, as on the ISA bus.
 *
 * While a device moves from one source to another the lines are held: what changes is noted, and
 * acted on at the end, so that a line that was high and is high again makes no edge.
 */
#ifndef KVMSHIM_LINES_H
#define KVMSHIM_LINES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    LINES = 1024,
    LINES_SOURCES = 32,
    LINES_ISA = 16,         /* those that interrupt controllers outside the kernel have */
    LINE_CASCADE = 2,       /* none of a device's (8259A data sheet, cascade) */
    LINE_INTR = LINES - 1,  /* what such controllers ask the processor with */
    LINES_QUEUE = 1024,
    LINES_NO_KVM = -2, /* in place of a VM's descriptor */
};

struct line_change {
    uint8_t line, level;
};

struct lines {
    pthread_mutex_t lock;
    bool held;
    uint32_t high[LINES]; /* a bit for each source */
    uint8_t told[LINES];  /* the level that KVM has been told */
    /*
     * The interrupt controllers are a device: changes wait in order for the vCPU, which takes them
     * there. After an overrun only the levels are left to be told.
     */
    bool userspace_irqchip, overrun;
    struct line_change queue[LINES_QUEUE];
    uint32_t first, last;
    _Atomic bool asked; /* the level of LINE_INTR */
};

void lines_init(struct lines *lines);
void lines_free(struct lines *lines);
/* A source drives a line; tells KVM (KVM_IRQ_LINE) if that changes it. 0, or -1 and errno. */
int lines_drive(struct lines *lines, int vm_fd, unsigned source, uint32_t line, bool level);
/* From now on the controllers are a device. */
void lines_userspace_irqchip(struct lines *lines);
/* The next change that the controllers are to be told; false if there is none. */
bool lines_next(struct lines *lines, struct line_change *change);
/* Whether there is one. */
bool lines_wait(struct lines *lines);
/* Drops the levels of all links; the client's own devices (source 0) keep theirs. To be called while
 * the lines are held: KVM learns of it at the release. */
void lines_forget(struct lines *lines);
/* Holds the lines, or lets them go; 0, or -1 and errno. */
int lines_hold(struct lines *lines, int vm_fd, bool hold);

#endif
