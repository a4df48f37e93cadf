/*
 * Whether to look again and again for what is to come, or to sleep at once.
 *
 * Looking saves the wake-up, which costs several times what an access does. It does not pay when
 * nothing comes in time, and it costs more than it saves when the core is wanted: whoever is waited
 * for may be the one that wants it. Both are noticed, the second by the time that the thread had to
 * wait for a core (Documentation/scheduler/sched-stats.rst, /proc/<pid>/schedstat). After each
 * disappointment the waiter sleeps at once for a while that doubles with the next one. The longest
 * while is so much longer than what is lost before the disappointment that it is a few percent at
 * most. What one waiter can't know, that others wait too, spin_budget.h does.
 */
#ifndef KVMSHIM_SPIN_WAIT_H
#define KVMSHIM_SPIN_WAIT_H

#include <stdbool.h>
#include <stdint.h>

enum spin_wait_mode { SPIN_WAIT_ADAPTIVE, SPIN_WAIT_SPIN, SPIN_WAIT_BLOCK };

struct spin_wait {
    int mode;
    int64_t spin_ns; /* so long an adaptive waiter looks before it sleeps */
    int score;       /* how often looking has paid of late */
    int64_t resume_ns;                  /* no looking until then */
    int64_t fruitless_ns, preempted_ns; /* for how long the next time, by the reason */
    int64_t spun_ns;                    /* since the last question to the scheduler */
    int64_t asked_ns, waited_ns;        /* when that was, and its answer then */
    int cores;                          /* that the thread may run on */
    unsigned waits;
    bool counted; /* among those that wait for what is expected soon */
    int schedstat_fd;                   /* of the waiting thread; -1: not open */
};

struct spin_wait spin_wait_new(int mode, int64_t spin_ns);
void spin_wait_end(struct spin_wait *spin_wait);
/*
 * For one thread only, from here on. A wait begins: whether to look before sleeping; now_ns:
 * CLOCK_MONOTONIC. It counts as one that waits in this process until it leaves, which it does before
 * it sleeps for what may never come.
 */
bool spin_wait_enter(struct spin_wait *spin_wait, int64_t now_ns);
void spin_wait_leave(struct spin_wait *spin_wait);
/* It looked from start_ns to now_ns; paid: something came. For adaptive waiters only. */
void spin_wait_learn(struct spin_wait *spin_wait, bool paid, int64_t start_ns, int64_t now_ns);

#endif
