#include "wait/spin_budget.h"

#include <stdatomic.h>

enum {
    CREDIT_MAX_NS = 2400000,
    CREDIT_PART = 32,    /* of the time that passes */
    WAKE_UP_NS = 25000,
};

static struct {
    _Atomic int waiting;
    _Atomic int64_t credit_ns, grown_ns; /* what is left, and when it last grew by itself */
} spin_budget = { .credit_ns = CREDIT_MAX_NS };

void spin_budget_join(void)
{
    atomic_fetch_add(&spin_budget.waiting, 1);
}

void spin_budget_leave(void)
{
    atomic_fetch_sub(&spin_budget.waiting, 1);
}

static void grow(int64_t now_ns)
{
    int64_t before_ns = atomic_load(&spin_budget.grown_ns);
    int64_t grown_ns = (now_ns - before_ns) / CREDIT_PART;
    if (grown_ns < WAKE_UP_NS || !atomic_compare_exchange_strong(&spin_budget.grown_ns, &before_ns, now_ns))
        return; /* too soon, or another thread has just done it */
    atomic_fetch_add(&spin_budget.credit_ns, grown_ns < CREDIT_MAX_NS ? grown_ns : CREDIT_MAX_NS);
}

bool spin_budget_allows(int cores, int64_t now_ns)
{
    if (atomic_load_explicit(&spin_budget.waiting, memory_order_relaxed) >= cores)
        return false;
    if (atomic_load_explicit(&spin_budget.credit_ns, memory_order_relaxed) > 0)
        return true;
    grow(now_ns);
    return false;
}

void spin_budget_pay(int64_t spent_ns)
{
    atomic_fetch_sub(&spin_budget.credit_ns, spent_ns);
}

void spin_budget_gain(void)
{
    if (atomic_load_explicit(&spin_budget.credit_ns, memory_order_relaxed) < CREDIT_MAX_NS)
        atomic_fetch_add(&spin_budget.credit_ns, WAKE_UP_NS);
}
