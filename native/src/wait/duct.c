#define _GNU_SOURCE
#include "wait/duct.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* include/uapi/linux/memfd.h, since Linux 6.3 */
#endif

enum {
    SERVER, CLIENT,
    SEALS = F_SEAL_SHRINK | F_SEAL_GROW,
};

/* The layout that docs/protocol.md gives. */
_Static_assert(offsetof(struct duct_page, lanes) == 128, "two words, a cache line each");
_Static_assert(offsetof(struct duct_lane, taken) == 64 && offsetof(struct duct_lane, full) == 72 &&
               offsetof(struct duct_lane, bytes) == 128, "counters on lines of their own");
_Static_assert(sizeof(struct duct_page) == 128 + 2 * (128 + DUCT_BYTES), "nothing behind them");

/* -- making ------------------------------------------------------------------------------- */

static int map(struct duct *duct, int fd, int memory_fd, int end)
{
    void *page = mmap(NULL, sizeof *duct->page, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    if (page == MAP_FAILED)
        return -1;
    *duct = (struct duct){ .fd = fd, .page = page, .end = end, .room_until = DUCT_BYTES };
    return 0;
}

/* A host may insist that nobody can execute it (vm.memfd_noexec); older kernels don't know that. */
static int new_memory(void)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = memfd_create("kvmshim", flags | MFD_NOEXEC_SEAL);
    return fd < 0 && errno == EINVAL ? memfd_create("kvmshim", flags) : fd;
}

int duct_make(struct duct *duct, int fd)
{
    int memory_fd = new_memory();
    if (memory_fd < 0)
        return -1;
    if (ftruncate(memory_fd, sizeof *duct->page) < 0 || fcntl(memory_fd, F_ADD_SEALS, SEALS) < 0 ||
        map(duct, fd, memory_fd, SERVER) < 0) {
        int error = errno;
        close(memory_fd);
        errno = error;
        return -1;
    }
    atomic_store(&duct->page->ends[SERVER].wake, DUCT_BELL);
    atomic_store(&duct->page->ends[CLIENT].wake, DUCT_BELL);
    return memory_fd;
}

int duct_open(struct duct *duct, int fd, int memory_fd)
{
    struct stat stat;
    if (fstat(memory_fd, &stat) < 0)
        return -1;
    int seals = fcntl(memory_fd, F_GET_SEALS); /* who could make it shorter could end this process */
    if (seals < 0 || (seals & SEALS) != SEALS || stat.st_size != sizeof *duct->page) {
        errno = EPROTO;
        return -1;
    }
    return map(duct, fd, memory_fd, CLIENT);
}

void duct_close(struct duct *duct)
{
    if (duct->page)
        munmap(duct->page, sizeof *duct->page);
    duct->page = NULL;
}

/* -- waking the other end ----------------------------------------------------------------- */

static _Atomic uint32_t *wake_of(const struct duct *duct, int end)
{
    return &duct->page->ends[end].wake;
}

static long futex(_Atomic uint32_t *word, int what, uint32_t value, const struct timespec *nap)
{
    return syscall(SYS_futex, word, what, value, nap, NULL, 0);
}

static void wake_peer(struct duct *duct)
{
    _Atomic uint32_t *wake = wake_of(duct, !duct->end);
    if (atomic_load(wake) == DUCT_LOOKS)
        return;
    uint32_t how = atomic_exchange(wake, DUCT_LOOKS);
    if (how == DUCT_FUTEX)
        futex(wake, FUTEX_WAKE, 1, NULL);
    else if (how == DUCT_BELL)
        send(duct->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* where bells wait it wakes anyway */
}

/* -- bytes -------------------------------------------------------------------------------- */

static struct duct_lane *given(const struct duct *duct)
{
    return &duct->page->lanes[duct->end];
}

static struct duct_lane *received(const struct duct *duct)
{
    return &duct->page->lanes[!duct->end];
}

static bool see_room(struct duct *duct)
{
    uint64_t taken = atomic_load(&given(duct)->taken);
    if (duct->put - taken > DUCT_BYTES)
        return false;
    duct->room_until = taken + DUCT_BYTES;
    return true;
}

static void put(struct duct *duct, const uint8_t *bytes, size_t length)
{
    struct duct_lane *lane = given(duct);
    size_t at = duct->put % DUCT_BYTES;
    size_t first = length < DUCT_BYTES - at ? length : DUCT_BYTES - at;
    memcpy(lane->bytes + at, bytes, first);
    memcpy(lane->bytes, bytes + first, length - first);
    duct->put += length;
    atomic_store(&lane->put, duct->put);
}

ssize_t duct_give(struct duct *duct, const uint8_t *bytes, size_t length)
{
    if (duct->put + length > duct->room_until && !see_room(duct)) {
        errno = EPROTO;
        return -1;
    }
    if (duct->put + length > duct->room_until) {
        atomic_store(&given(duct)->full, 1); /* before the last look */
        if (!see_room(duct)) {
            errno = EPROTO;
            return -1;
        }
    }
    uint64_t room = duct->room_until - duct->put;
    size_t now = length < room ? length : (size_t)room;
    atomic_store_explicit(&duct->is_short, now < length, memory_order_release);
    if (now == 0)
        return 0;
    put(duct, bytes, now);
    wake_peer(duct);
    return (ssize_t)now;
}

ssize_t duct_take(struct duct *duct, uint8_t *bytes, size_t room)
{
    struct duct_lane *lane = received(duct);
    uint64_t there = atomic_load(&lane->put) - duct->taken;
    if (there > DUCT_BYTES) {
        errno = EPROTO;
        return -1;
    }
    if (there == 0 || room == 0)
        return 0;
    size_t now = there < room ? (size_t)there : room;
    size_t at = duct->taken % DUCT_BYTES;
    size_t first = now < DUCT_BYTES - at ? now : DUCT_BYTES - at;
    memcpy(bytes, lane->bytes + at, first);
    memcpy(bytes + first, lane->bytes, now - first);
    duct->taken += now;
    atomic_store(&lane->taken, duct->taken);
    if (atomic_load(&lane->full) && atomic_exchange(&lane->full, 0))
        wake_peer(duct);
    return (ssize_t)now;
}

ssize_t duct_hear(struct duct *duct)
{
    uint8_t bells[64];
    ssize_t heard = recv(duct->fd, bells, sizeof bells, MSG_DONTWAIT);
    duct->ended |= heard == 0;
    return heard;
}

ssize_t duct_receive(struct duct *duct, uint8_t *bytes, size_t room, long nap_us)
{
    ssize_t n = duct_take(duct, bytes, room);
    if (n == 0 && nap_us) {
        duct_sleep(duct, nap_us);
        n = duct_take(duct, bytes, room);
        if (n == 0) { /* in this order: what was put before the end is still taken */
            duct_hear(duct);
            n = duct_take(duct, bytes, room);
        }
    }
    if (n == 0 && !duct->ended) {
        errno = EAGAIN;
        n = -1;
    }
    return n;
}

/* -- waiting ------------------------------------------------------------------------------ */

void duct_look(struct duct *duct)
{
    atomic_store(wake_of(duct, duct->end), DUCT_LOOKS);
}

void duct_await_bell(struct duct *duct)
{
    atomic_store(wake_of(duct, duct->end), DUCT_BELL);
}

void duct_ask(struct duct *duct)
{
    duct_hear(duct); /* before: a bell that is heard here rings no more */
    duct_await_bell(duct);
}

void duct_await_bell_if_awake(struct duct *duct)
{
    uint32_t looks = DUCT_LOOKS;
    atomic_compare_exchange_strong(wake_of(duct, duct->end), &looks, DUCT_BELL);
}

bool duct_looks(const struct duct *duct)
{
    return atomic_load_explicit(wake_of(duct, duct->end), memory_order_relaxed) == DUCT_LOOKS;
}

bool duct_has_room_again(const struct duct *duct)
{
    return atomic_load(&duct->is_short) && !atomic_load(&given(duct)->full);
}

void duct_sleep(struct duct *duct, long nap_us)
{
    _Atomic uint32_t *wake = wake_of(duct, duct->end);
    atomic_store(wake, DUCT_FUTEX);
    bool nothing = atomic_load(&received(duct)->put) == duct->taken;
    if (nothing && !duct_has_room_again(duct)) {
        struct timespec nap = { .tv_nsec = nap_us * 1000 };
        futex(wake, FUTEX_WAIT, DUCT_FUTEX, &nap);
    }
    atomic_store(wake, DUCT_LOOKS);
}
