/* Guests that write and then halt: which of their posted writes are to wait. */
#include "vcpu/halts.h"

#include <string.h>
#include <time.h>

#include "check.h"

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    (void)fd, (void)request;
    return 0;
}

struct rig {
    struct routes routes;
    struct link links[2];
    struct halts halts;
};

static struct rig rig;

static void set_up(void)
{
    memset(&rig, 0, sizeof rig);
    rig.routes.links[0] = &rig.links[0];
    rig.routes.links[1] = &rig.links[1];
}

/* One exit of the guest, for a write to a link. */
static bool write_to(uint16_t link)
{
    halts_exit(&rig.halts, &rig.routes);
    bool waits = halts_wait(&rig.halts, &rig.routes, link);
    halts_served(&rig.halts);
    return waits;
}

static void interrupt_from(uint16_t link)
{
    rig.links[link].stats.interrupts++;
}

/* The guest is not running: its thread uses none of this time. */
static void halt(void)
{
    struct timespec a_while = { .tv_nsec = 1000000 };
    nanosleep(&a_while, NULL);
}

static void halt_until_interrupt(void)
{
    halt();
    interrupt_from(0);
}

/* How many writes of a guest that halts after each are posted before one waits. */
static int posted_before_one_waits(void)
{
    for (int posted = 0; posted < 100; posted++) {
        if (write_to(0))
            return posted;
        halt_until_interrupt();
    }
    return -1;
}

static void writes_of_a_guest_that_halts_after_each_are_to_wait(void)
{
    set_up();
    CHECK_EQUAL(posted_before_one_waits(), 5); /* the first follows no interrupt */
}

static void they_wait_as_long_as_each_wait_brings_the_interrupt(void)
{
    set_up();
    posted_before_one_waits();
    for (int i = 0; i < 50; i++) {
        interrupt_from(0);
        CHECK(write_to(0));
    }
}

static void after_a_while_it_is_seen_anew_whether_the_guest_halts(void)
{
    set_up();
    posted_before_one_waits();
    int waited = 0;
    do
        interrupt_from(0);
    while (write_to(0) && ++waited < 1000);
    CHECK(waited < 1000);
    halt_until_interrupt();
    CHECK_EQUAL(posted_before_one_waits(), 3);
}

static void two_waits_without_an_interrupt_end_it(void)
{
    set_up();
    posted_before_one_waits();
    interrupt_from(0);
    CHECK(write_to(0));
    CHECK(!write_to(0)); /* follows no interrupt, and the one before brought none */
    interrupt_from(0);
    CHECK(write_to(0));
    CHECK(!write_to(0));
    interrupt_from(0);
    CHECK(!write_to(0));
}

static void writes_that_bring_no_interrupt_never_wait(void)
{
    set_up();
    for (int i = 0; i < 20; i++) {
        CHECK(!write_to(0));
        halt();
    }
}

static void the_interrupts_of_another_server_do_not_count(void)
{
    set_up();
    for (int i = 0; i < 20; i++) {
        CHECK(!write_to(0));
        halt();
        interrupt_from(1);
    }
}

static void a_write_that_is_served_outside_an_exit_never_waits(void)
{
    set_up();
    posted_before_one_waits();
    interrupt_from(0);
    CHECK(!halts_wait(&rig.halts, &rig.routes, 0));
}

static void a_link_may_have_ended_meanwhile(void)
{
    set_up();
    CHECK(!write_to(0));
    halt_until_interrupt();
    rig.routes.links[0] = NULL;
    CHECK(!write_to(1));
}

int main(void)
{
    static const struct test tests[] = {
        TEST(writes_of_a_guest_that_halts_after_each_are_to_wait),
        TEST(they_wait_as_long_as_each_wait_brings_the_interrupt),
        TEST(after_a_while_it_is_seen_anew_whether_the_guest_halts),
        TEST(two_waits_without_an_interrupt_end_it),
        TEST(writes_that_bring_no_interrupt_never_wait),
        TEST(the_interrupts_of_another_server_do_not_count),
        TEST(a_write_that_is_served_outside_an_exit_never_waits),
        TEST(a_link_may_have_ended_meanwhile),
    };
    return run_tests(tests, sizeof tests / sizeof *tests);
}
