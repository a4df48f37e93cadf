/* When an adaptive waiter looks and when it sleeps at once, alone and among others. */
#define _GNU_SOURCE
#include "wait/patience.h"

#include <fcntl.h>
#include <sched.h>

#include "check.h"
#include "wait/crowd.h"

enum { LOOK_NS = 150000, MS = 1000000 };

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    (void)fd, (void)request;
    return 0;
}

/* The time of all tests; it never runs backwards, as the crowd is one for all. */
static int64_t now_ns = MS;

/* So much later that nothing of what was before counts any more. */
static void later(void)
{
    now_ns += INT64_C(60000) * MS;
    crowd_lets_look(64, now_ns);
    now_ns += MS;
}

/* An adaptive waiter on a host that does not say how long a thread waited for its core. */
static struct patience waiter(void)
{
    struct patience patience = patience_new(PATIENCE_ADAPTIVE, LOOK_NS);
    patience.schedstat_fd = open("/dev/null", O_RDONLY);
    return patience;
}

static bool wait_once(struct patience *patience, bool something_comes)
{
    bool looked = patience_enter(patience, now_ns);
    int64_t start_ns = now_ns;
    now_ns += something_comes ? 10000 : LOOK_NS;
    if (looked)
        patience_learn(patience, something_comes, start_ns, now_ns);
    patience_leave(patience);
    return looked;
}

static bool can_look(void)
{
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof cores, &cores) == 0 && CPU_COUNT(&cores) > 1;
}

static void who_always_spins_or_blocks_does_so_whatever_comes(void)
{
    struct patience spins = patience_new(PATIENCE_SPIN, LOOK_NS);
    struct patience blocks = patience_new(PATIENCE_BLOCK, LOOK_NS);
    for (int i = 0; i < 100; i++) {
        CHECK(wait_once(&spins, false));
        CHECK(!wait_once(&blocks, true));
    }
}

static void looks_while_that_pays_and_pauses_when_nothing_comes(void)
{
    struct patience patience = waiter();
    later();
    for (int i = 0; i < 10000; i++)
        CHECK_EQUAL(wait_once(&patience, true), can_look());
    int looks = 0;
    while (wait_once(&patience, false))
        looks++;
    CHECK(looks < 5);
    later();
    CHECK_EQUAL(wait_once(&patience, true), can_look());
    patience_end(&patience);
}

static void looks_that_bring_nothing_take_a_few_percent_of_the_time(void)
{
    struct patience patience = waiter();
    later();
    int64_t looked_ns = 0, began_ns = now_ns;
    for (int i = 0; i < 100000; i++)
        if (wait_once(&patience, false))
            looked_ns += LOOK_NS;
    CHECK(looked_ns < (now_ns - began_ns) / 20);
    patience_end(&patience);
}

static void hundreds_together_spend_no_more_on_it_than_one(void)
{
    enum { WAITERS = 300 };
    static struct patience waiters[WAITERS];
    for (int i = 0; i < WAITERS; i++)
        waiters[i] = waiter();
    later();
    int64_t looked_ns = 0, began_ns = now_ns;
    for (int i = 0; i < 100000; i++)
        if (wait_once(&waiters[i % WAITERS], false))
            looked_ns += LOOK_NS;
    CHECK(looked_ns < (now_ns - began_ns) / 20);
    for (int i = 0; i < WAITERS; i++)
        patience_end(&waiters[i]);
}

static void a_core_is_left_for_those_that_are_waited_for(void)
{
    later();
    for (int waiting = 1; waiting <= 3; waiting++) {
        crowd_join();
        CHECK_EQUAL(crowd_lets_look(3, now_ns), waiting < 3);
    }
    crowd_leave();
    CHECK(crowd_lets_look(3, now_ns));
    crowd_leave();
    CHECK(!crowd_lets_look(1, now_ns));
    crowd_leave();
}

static void looks_that_pay_earn_those_that_do_not(void)
{
    later();
    while (crowd_lets_look(2, now_ns))
        crowd_pay(LOOK_NS);
    for (int i = 0; i < 10; i++)
        crowd_gain();
    CHECK(crowd_lets_look(2, now_ns));
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
