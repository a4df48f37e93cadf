#include "wait/crowd.h"

#include <stdatomic.h>

enum {
    CREDIT_MAX_NS = 2400000,
    CREDIT_PART = 32,    /* of the time that passes */
    WAKE_UP_NS = 25000,
};

static struct {
    _Atomic int waiting;
    _Atomic int64_t credit_ns, grown_ns; /* what is left, and when it last grew by itself */
} crowd = { .credit_ns = CREDIT_MAX_NS };

void crowd_join(void)
{
    atomic_fetch_add(&crowd.waiting, 1);
}

void crowd_leave(void)
{
    atomic_fetch_sub(&crowd.waiting, 1);
}

static void grow(int64_t now_ns)
{
    int64_t before_ns = atomic_load(&crowd.grown_ns);
    int64_t grown_ns = (now_ns - before_ns) / CREDIT_PART;
    if (grown_ns < WAKE_UP_NS || !atomic_compare_exchange_strong(&crowd.grown_ns, &before_ns, now_ns))
        return; /* too soon, or another thread has just done it */
    atomic_fetch_add(&crowd.credit_ns, grown_ns < CREDIT_MAX_NS ? grown_ns : CREDIT_MAX_NS);
}

bool crowd_lets_look(int cores, int64_t now_ns)
{
    if (atomic_load_explicit(&crowd.waiting, memory_order_relaxed) >= cores)
        return false;
    if (atomic_load_explicit(&crowd.credit_ns, memory_order_relaxed) > 0)
        return true;
    grow(now_ns);
    return false;
}

void crowd_pay(int64_t spent_ns)
{
    atomic_fetch_sub(&crowd.credit_ns, spent_ns);
}

void crowd_gain(void)
{
    if (atomic_load_explicit(&crowd.credit_ns, memory_order_relaxed) < CREDIT_MAX_NS)
        atomic_fetch_add(&crowd.credit_ns, WAKE_UP_NS);
}
