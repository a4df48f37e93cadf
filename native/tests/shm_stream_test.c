/* A stream whose bytes go through memory: what is put comes out, and nobody sleeps through it. */
#define _GNU_SOURCE
#include "wait/shm_stream.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    (void)fd, (void)request;
    return 0;
}

enum { AT_MOST_MS = 20000, LONG_NAP_US = 900000 };

struct pair {
    struct shm_stream server, client;
};

static uint8_t plenty[SHM_BYTES + 1];

static struct pair set_up(void)
{
    struct pair pair;
    int fds[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    int memory_fd = shm_stream_make(&pair.server, fds[0]);
    CHECK(memory_fd >= 0);
    CHECK_EQUAL(shm_stream_open(&pair.client, fds[1], memory_fd), 0);
    close(memory_fd);
    return pair;
}

static void tear_down(struct pair *pair)
{
    close(pair->server.fd);
    close(pair->client.fd);
    shm_stream_close(&pair->server);
    shm_stream_close(&pair->client);
}

static void give(struct shm_stream *shm, const char *text)
{
    CHECK_EQUAL(shm_stream_give(shm, (const uint8_t *)text, strlen(text)), strlen(text));
}

static bool has_bell(const struct shm_stream *shm)
{
    struct pollfd doorbell = { .fd = shm->fd, .events = POLLIN };
    return poll(&doorbell, 1, 0) == 1;
}

static void what_one_end_gives_the_other_takes(void)
{
    struct pair pair = set_up();
    uint8_t taken[8];
    give(&pair.server, "down");
    give(&pair.client, "up");
    CHECK_EQUAL(shm_stream_take(&pair.client, taken, 3), 3);
    CHECK_EQUAL(memcmp(taken, "dow", 3), 0);
    CHECK_EQUAL(shm_stream_take(&pair.client, taken, 8), 1);
    CHECK_EQUAL(shm_stream_take(&pair.client, taken, 8), 0);
    CHECK_EQUAL(shm_stream_take(&pair.server, taken, 8), 2);
    CHECK_EQUAL(memcmp(taken, "up", 2), 0);
    tear_down(&pair);
}

static void an_end_that_waits_for_a_bell_hears_one_and_no_more(void)
{
    struct pair pair = set_up();
    shm_stream_await_doorbell(&pair.client);
    give(&pair.server, "a");
    give(&pair.server, "b");
    CHECK_EQUAL(shm_stream_hear(&pair.client), 1);
    CHECK_EQUAL(shm_stream_hear(&pair.client), -1);
    CHECK_EQUAL(errno, EAGAIN);
    CHECK(shm_stream_looks(&pair.client));
    tear_down(&pair);
}

static void an_end_that_looks_hears_nothing(void)
{
    struct pair pair = set_up();
    shm_stream_look(&pair.client);
    give(&pair.server, "a");
    CHECK(!has_bell(&pair.client));
    shm_stream_await_doorbell_if_awake(&pair.client);
    give(&pair.server, "b");
    CHECK(has_bell(&pair.client));
    tear_down(&pair);
}

static void the_other_end_s_end_is_heard(void)
{
    struct pair pair = set_up();
    give(&pair.server, "last words");
    shutdown(pair.server.fd, SHUT_RDWR);
    CHECK_EQUAL(shm_stream_hear(&pair.client), 1);
    CHECK_EQUAL(shm_stream_hear(&pair.client), 0);
    CHECK_EQUAL(shm_stream_take(&pair.client, plenty, sizeof plenty), 10);
    tear_down(&pair);
}

static void no_more_is_given_than_there_is_room_for(void)
{
    struct pair pair = set_up();
    shm_stream_await_doorbell(&pair.server);
    CHECK_EQUAL(shm_stream_give(&pair.server, plenty, sizeof plenty), SHM_BYTES);
    CHECK_EQUAL(shm_stream_give(&pair.server, plenty, 1), 0);
    CHECK(!shm_stream_has_room_again(&pair.server) && !has_bell(&pair.server));
    CHECK_EQUAL(shm_stream_take(&pair.client, plenty, 1), 1);
    CHECK(shm_stream_has_room_again(&pair.server) && has_bell(&pair.server));
    CHECK_EQUAL(shm_stream_give(&pair.server, plenty, 2), 1);
    tear_down(&pair);
}

static void a_bell_for_room_is_rung_only_where_there_was_none(void)
{
    struct pair pair = set_up();
    shm_stream_await_doorbell(&pair.server);
    CHECK_EQUAL(shm_stream_give(&pair.server, plenty, SHM_BYTES), SHM_BYTES);
    CHECK_EQUAL(shm_stream_take(&pair.client, plenty, 1), 1);
    CHECK(!has_bell(&pair.server));
    tear_down(&pair);
}

/* -- sleeping ----------------------------------------------------------------------------- */

static void *sleep_once(void *shm)
{
    shm_stream_sleep(shm, LONG_NAP_US);
    return NULL;
}

static void wait_until_it_sleeps(const struct shm_stream *shm)
{
    while (atomic_load(&shm->page->ends[shm->end].wake) != SHM_FUTEX)
        sched_yield();
}

static void whoever_sleeps_is_woken_by_what_comes(void)
{
    struct pair pair = set_up();
    pthread_t sleeper;
    CHECK_EQUAL(pthread_create(&sleeper, NULL, sleep_once, &pair.client), 0);
    wait_until_it_sleeps(&pair.client);
    give(&pair.server, "a");
    CHECK_EQUAL(pthread_join(sleeper, NULL), 0);
    CHECK_EQUAL(shm_stream_take(&pair.client, plenty, 1), 1);
    tear_down(&pair);
}

static void whoever_sleeps_is_woken_by_room(void)
{
    struct pair pair = set_up();
    pthread_t sleeper;
    CHECK_EQUAL(shm_stream_give(&pair.server, plenty, sizeof plenty), SHM_BYTES);
    CHECK_EQUAL(pthread_create(&sleeper, NULL, sleep_once, &pair.server), 0);
    wait_until_it_sleeps(&pair.server);
    CHECK_EQUAL(shm_stream_take(&pair.client, plenty, 1), 1);
    CHECK_EQUAL(pthread_join(sleeper, NULL), 0);
    CHECK(shm_stream_has_room_again(&pair.server));
    tear_down(&pair);
}

static void nobody_goes_to_sleep_beside_what_is_there_already(void)
{
    struct pair pair = set_up();
    shm_stream_look(&pair.client);
    shm_stream_look(&pair.server);
    give(&pair.server, "a");
    shm_stream_sleep(&pair.client, LONG_NAP_US);
    CHECK_EQUAL(shm_stream_give(&pair.client, plenty, sizeof plenty), SHM_BYTES);
    CHECK_EQUAL(shm_stream_take(&pair.server, plenty, 1), 1);
    CHECK_EQUAL(shm_stream_take(&pair.client, plenty, 1), 1);
    shm_stream_sleep(&pair.client, LONG_NAP_US); /* there is room again */
    tear_down(&pair);
}

/* -- a long stream: sender and receiver wait in one of three ways ------------------------- */

enum { STREAM_BYTES = 6 * 1024 * 1024, LARGEST_PART = 3 * SHM_BYTES / 4 };

struct runner {
    struct shm_stream *shm;
    int way;
};

static uint8_t byte_at(size_t at)
{
    return (uint8_t)(at * 2654435761u >> 13);
}

static size_t next_part(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % (*seed & 1 ? 100 : LARGEST_PART) + 1;
}

static void wait_for_more(struct runner *runner)
{
    struct pollfd doorbell = { .fd = runner->shm->fd, .events = POLLIN };
    if (runner->way == SHM_FUTEX)
        shm_stream_sleep(runner->shm, LONG_NAP_US);
    else if (runner->way == SHM_DOORBELL && poll(&doorbell, 1, AT_MOST_MS) == 1)
        shm_stream_hear(runner->shm);
}

/* What is done between saying how to be woken and going to sleep. */
static void say_how(struct runner *runner)
{
    if (runner->way == SHM_DOORBELL)
        shm_stream_await_doorbell(runner->shm);
    else
        shm_stream_look(runner->shm);
}

static void *send_stream(void *argument)
{
    struct runner *runner = argument;
    static uint8_t part[LARGEST_PART];
    uint32_t seed = 1;
    for (size_t sent = 0; sent < STREAM_BYTES;) {
        size_t length = next_part(&seed);
        if (length > STREAM_BYTES - sent)
            length = STREAM_BYTES - sent;
        for (size_t i = 0; i < length; i++)
            part[i] = byte_at(sent + i);
        for (size_t done = 0; done < length;) {
            say_how(runner);
            ssize_t n = shm_stream_give(runner->shm, part + done, length - done);
            CHECK(n >= 0);
            done += (size_t)n;
            if (done < length && !shm_stream_has_room_again(runner->shm))
                wait_for_more(runner);
        }
        sent += length;
    }
    return NULL;
}

static void *receive_stream(void *argument)
{
    struct runner *runner = argument;
    static uint8_t part[LARGEST_PART];
    uint32_t seed = 2;
    for (size_t received = 0; received < STREAM_BYTES;) {
        say_how(runner);
        ssize_t n = shm_stream_take(runner->shm, part, next_part(&seed));
        CHECK(n >= 0);
        if (n == 0)
            wait_for_more(runner);
        for (size_t i = 0; i < (size_t)n; i++)
            CHECK_EQUAL(part[i], byte_at(received + i));
        received += (size_t)n;
    }
    return NULL;
}

static void a_stream_arrives_whole_however_the_ends_wait(void)
{
    static const int ways[] = { SHM_LOOKS, SHM_DOORBELL, SHM_FUTEX };
    for (int i = 0; i < 9; i++) {
        struct pair pair = set_up();
        struct runner sender = { &pair.client, ways[i / 3] };
        struct runner receiver = { &pair.server, ways[i % 3] };
        pthread_t threads[2];
        CHECK_EQUAL(pthread_create(&threads[0], NULL, send_stream, &sender), 0);
        CHECK_EQUAL(pthread_create(&threads[1], NULL, receive_stream, &receiver), 0);
        CHECK_EQUAL(pthread_join(threads[0], NULL), 0);
        CHECK_EQUAL(pthread_join(threads[1], NULL), 0);
        tear_down(&pair);
    }
}

/* -- others' mistakes --------------------------------------------------------------------- */

static void counters_that_can_t_be_are_a_breach(void)
{
    struct pair pair = set_up();
    atomic_store(&pair.client.page->rings[0].put, SHM_BYTES + 1);
    CHECK_EQUAL(shm_stream_take(&pair.client, plenty, 1), -1);
    CHECK_EQUAL(errno, EPROTO);
    atomic_store(&pair.client.page->rings[1].taken, UINT64_MAX - SHM_BYTES);
    CHECK_EQUAL(shm_stream_give(&pair.client, plenty, sizeof plenty), -1);
    CHECK_EQUAL(errno, EPROTO);
    tear_down(&pair);
}

static void memory_that_could_shrink_is_not_used(void)
{
    struct shm_stream shm;
    int fd = memfd_create("short", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(fd >= 0);
    CHECK_EQUAL(ftruncate(fd, sizeof(struct shm_page)), 0);
    CHECK_EQUAL(shm_stream_open(&shm, -1, fd), -1);
    CHECK_EQUAL(errno, EPROTO);
    close(fd);
}

static void what_is_no_memory_is_not_used(void)
{
    struct shm_stream shm;
    int fds[2];
    CHECK_EQUAL(pipe(fds), 0);
    CHECK_EQUAL(shm_stream_open(&shm, -1, fds[0]), -1);
    CHECK_EQUAL(errno, EPROTO);
    close(fds[0]);
    close(fds[1]);
    CHECK_EQUAL(shm_stream_open(&shm, -1, fds[0]), -1);
    CHECK_EQUAL(errno, EBADF);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(what_one_end_gives_the_other_takes),
        TEST(an_end_that_waits_for_a_bell_hears_one_and_no_more),
        TEST(an_end_that_looks_hears_nothing),
        TEST(the_other_end_s_end_is_heard),
        TEST(no_more_is_given_than_there_is_room_for),
        TEST(a_bell_for_room_is_rung_only_where_there_was_none),
        TEST(whoever_sleeps_is_woken_by_what_comes),
        TEST(whoever_sleeps_is_woken_by_room),
        TEST(nobody_goes_to_sleep_beside_what_is_there_already),
        TEST(a_stream_arrives_whole_however_the_ends_wait),
        TEST(counters_that_can_t_be_are_a_breach),
        TEST(memory_that_could_shrink_is_not_used),
        TEST(what_is_no_memory_is_not_used),
    };
    return run_tests(tests, sizeof tests / sizeof *tests);
}
