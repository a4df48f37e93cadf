/* When an adaptive waiter looks and when it sleeps at once, alone and among others. */
#define _GNU_SOURCE
#include "wait/spin_wait.h"

#include <fcntl.h>
#include <sched.h>

#include "check.h"
#include "wait/spin_budget.h"

enum { LOOK_NS = 150000, MS = 1000000 };

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    (void)fd, (void)request;
    return 0;
}

/* The time of all tests; it never runs backwards, as the spin_budget is one for all. */
static int64_t now_ns = MS;

/* So much later that nothing of what was before counts any more. */
static void later(void)
{
    now_ns += INT64_C(60000) * MS;
    spin_budget_allows(64, now_ns);
    now_ns += MS;
}

/* An adaptive waiter on a host that does not say how long a thread waited for its core. */
static struct spin_wait waiter(void)
{
    struct spin_wait spin_wait = spin_wait_new(SPIN_WAIT_ADAPTIVE, LOOK_NS);
    spin_wait.schedstat_fd = open("/dev/null", O_RDONLY);
    return spin_wait;
}

static bool wait_once(struct spin_wait *spin_wait, bool something_comes)
{
    bool looked = spin_wait_enter(spin_wait, now_ns);
    int64_t start_ns = now_ns;
    now_ns += something_comes ? 10000 : LOOK_NS;
    if (looked)
        spin_wait_learn(spin_wait, something_comes, start_ns, now_ns);
    spin_wait_leave(spin_wait);
    return looked;
}

static bool can_look(void)
{
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 && CPU_COUNT(&cores) > 1;
}

static void who_always_spins_or_blocks_does_so_whatever_comes(void)
{
    struct spin_wait spins = spin_wait_new(SPIN_WAIT_SPIN, LOOK_NS);
    struct spin_wait blocks = spin_wait_new(SPIN_WAIT_BLOCK, LOOK_NS);
    for (int i = 0; i < 100; i++) {
        CHECK(wait_once(&spins, false));
        CHECK(!wait_once(&blocks, true));
    }
}

static void looks_while_that_pays_and_pauses_when_nothing_comes(void)
{
    struct spin_wait spin_wait = waiter();
    later();
    for (int i = 0; i < 10000; i++)
        CHECK_EQUAL(wait_once(&spin_wait, true), can_look());
    int looks = 0;
    while (wait_once(&spin_wait, false))
        looks++;
    CHECK(looks < 5);
    later();
    CHECK_EQUAL(wait_once(&spin_wait, true), can_look());
    spin_wait_end(&spin_wait);
}

static void looks_that_bring_nothing_take_a_few_percent_of_the_time(void)
{
    struct spin_wait spin_wait = waiter();
    later();
    int64_t looked_ns = 0, began_ns = now_ns;
    for (int i = 0; i < 100000; i++)
        if (wait_once(&spin_wait, false))
            looked_ns += LOOK_NS;
    CHECK(looked_ns < (now_ns - began_ns) / 20);
    spin_wait_end(&spin_wait);
}

static void hundreds_together_spend_no_more_on_it_than_one(void)
{
    enum { WAITERS = 300 };
    static struct spin_wait waiters[WAITERS];
    for (int i = 0; i < WAITERS; i++)
        waiters[i] = waiter();
    later();
    int64_t looked_ns = 0, began_ns = now_ns;
    for (int i = 0; i < 100000; i++)
        if (wait_once(&waiters[i % WAITERS], false))
            looked_ns += LOOK_NS;
    CHECK(looked_ns < (now_ns - began_ns) / 20);
    for (int i = 0; i < WAITERS; i++)
        spin_wait_end(&waiters[i]);
}

static void a_core_is_left_for_those_that_are_waited_for(void)
{
    later();
    for (int waiting = 1; waiting <= 3; waiting++) {
        spin_budget_join();
        CHECK_EQUAL(spin_budget_allows(3, now_ns), waiting < 3);
    }
    spin_budget_leave();
    CHECK(spin_budget_allows(3, now_ns));
    spin_budget_leave();
    CHECK(!spin_budget_allows(1, now_ns));
    spin_budget_leave();
}

static void looks_that_pay_earn_those_that_do_not(void)
{
    later();
    while (spin_budget_allows(2, now_ns))
        spin_budget_pay(LOOK_NS);
    for (int i = 0; i < 10; i++)
        spin_budget_gain();
    CHECK(spin_budget_allows(2, now_ns));
}

int main(void)
{
    static const struct test tests[] = {
        TEST(who_always_spins_or_blocks_does_so_whatever_comes),
        TEST(looks_while_that_pays_and_pauses_when_nothing_comes),
        TEST(looks_that_bring_nothing_take_a_few_percent_of_the_time),
        TEST(hundreds_together_spend_no_more_on_it_than_one),
        TEST(a_core_is_left_for_those_that_are_waited_for),
        TEST(looks_that_pay_earn_those_that_do_not),
    };
    return run_tests(tests, sizeof tests / sizeof *tests);
}
