#define _GNU_SOURCE
#include "wait/shm_stream.h"

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
_Static_assert(offsetof(struct shm_page, rings) == 128, "two words, a cache line each");
_Static_assert(offsetof(struct shm_ring, taken) == 64 && offsetof(struct shm_ring, full) == 72 &&
               offsetof(struct shm_ring, bytes) == 128, "counters on lines of their own");
_Static_assert(sizeof(struct shm_page) == 128 + 2 * (128 + SHM_BYTES), "nothing behind them");

/* -- making ------------------------------------------------------------------------------- */

static int map(struct shm_stream *shm, int fd, int memory_fd, int end)
{
    void *page = mmap(NULL, sizeof *shm->page, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    if (page == MAP_FAILED)
        return -1;
    *shm = (struct shm_stream){ .fd = fd, .page = page, .end = end, .room_until = SHM_BYTES };
    return 0;
}

/* A host may insist that nobody can execute it (vm.memfd_noexec); older kernels don't know that. */
static int new_memory(void)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = memfd_create("kvmshim", flags | MFD_NOEXEC_SEAL);
    return fd < 0 && errno == EINVAL ? memfd_create("kvmshim", flags) : fd;
}

int shm_stream_make(struct shm_stream *shm, int fd)
{
    int memory_fd = new_memory();
    if (memory_fd < 0)
        return -1;
    if (ftruncate(memory_fd, sizeof *shm->page) < 0 || fcntl(memory_fd, F_ADD_SEALS, SEALS) < 0 ||
        map(shm, fd, memory_fd, SERVER) < 0) {
        int error = errno;
        close(memory_fd);
        errno = error;
        return -1;
    }
    atomic_store(&shm->page->ends[SERVER].wake, SHM_DOORBELL);
    atomic_store(&shm->page->ends[CLIENT].wake, SHM_DOORBELL);
    return memory_fd;
}

int shm_stream_open(struct shm_stream *shm, int fd, int memory_fd)
{
    struct stat stat;
    if (fstat(memory_fd, &stat) < 0)
        return -1;
    int seals = fcntl(memory_fd, F_GET_SEALS); /* who could make it shorter could end this process */
    if (seals < 0 || (seals & SEALS) != SEALS || stat.st_size != sizeof *shm->page) {
        errno = EPROTO;
        return -1;
    }
    return map(shm, fd, memory_fd, CLIENT);
}

void shm_stream_close(struct shm_stream *shm)
{
    if (shm->page)
        munmap(shm->page, sizeof *shm->page);
    shm->page = NULL;
}

/* -- waking the other end ----------------------------------------------------------------- */

static _Atomic uint32_t *wake_of(const struct shm_stream *shm, int end)
{
    return &shm->page->ends[end].wake;
}

static long futex(_Atomic uint32_t *word, int what, uint32_t value, const struct timespec *nap)
{
    return syscall(SYS_futex, word, what, value, nap, NULL, 0);
}

static void wake_peer(struct shm_stream *shm)
{
    _Atomic uint32_t *wake = wake_of(shm, !shm->end);
    if (atomic_load(wake) == SHM_LOOKS)
        return;
    uint32_t how = atomic_exchange(wake, SHM_LOOKS);
    if (how == SHM_FUTEX)
        futex(wake, FUTEX_WAKE, 1, NULL);
    else if (how == SHM_DOORBELL)
        send(shm->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* where doorbells wait it wakes anyway */
}

/* -- bytes -------------------------------------------------------------------------------- */

static struct shm_ring *given(const struct shm_stream *shm)
{
    return &shm->page->rings[shm->end];
}

static struct shm_ring *received(const struct shm_stream *shm)
{
    return &shm->page->rings[!shm->end];
}

static bool see_room(struct shm_stream *shm)
{
    uint64_t taken = atomic_load(&given(shm)->taken);
    if (shm->put - taken > SHM_BYTES)
        return false;
    shm->room_until = taken + SHM_BYTES;
    return true;
}

static void put(struct shm_stream *shm, const uint8_t *bytes, size_t length)
{
    struct shm_ring *ring = given(shm);
    size_t at = shm->put % SHM_BYTES;
    size_t first = length < SHM_BYTES - at ? length : SHM_BYTES - at;
    memcpy(ring->bytes + at, bytes, first);
    memcpy(ring->bytes, bytes + first, length - first);
    shm->put += length;
    atomic_store(&ring->put, shm->put);
}

ssize_t shm_stream_give(struct shm_stream *shm, const uint8_t *bytes, size_t length)
{
    if (shm->put + length > shm->room_until && !see_room(shm)) {
        errno = EPROTO;
        return -1;
    }
    if (shm->put + length > shm->room_until) {
        atomic_store(&given(shm)->full, 1); /* before the last look */
        if (!see_room(shm)) {
            errno = EPROTO;
            return -1;
        }
    }
    uint64_t room = shm->room_until - shm->put;
    size_t now = length < room ? length : (size_t)room;
    atomic_store_explicit(&shm->is_short, now < length, memory_order_release);
    if (now == 0)
        return 0;
    put(shm, bytes, now);
    wake_peer(shm);
    return (ssize_t)now;
}

ssize_t shm_stream_take(struct shm_stream *shm, uint8_t *bytes, size_t room)
{
    struct shm_ring *ring = received(shm);
    uint64_t there = atomic_load(&ring->put) - shm->taken;
    if (there > SHM_BYTES) {
        errno = EPROTO;
        return -1;
    }
    if (there == 0 || room == 0)
        return 0;
    size_t now = there < room ? (size_t)there : room;
    size_t at = shm->taken % SHM_BYTES;
    size_t first = now < SHM_BYTES - at ? now : SHM_BYTES - at;
    memcpy(bytes, ring->bytes + at, first);
    memcpy(bytes + first, ring->bytes, now - first);
    shm->taken += now;
    atomic_store(&ring->taken, shm->taken);
    if (atomic_load(&ring->full) && atomic_exchange(&ring->full, 0))
        wake_peer(shm);
    return (ssize_t)now;
}

ssize_t shm_stream_hear(struct shm_stream *shm)
{
    uint8_t doorbells[64];
    ssize_t heard = recv(shm->fd, doorbells, sizeof doorbells, MSG_DONTWAIT);
    shm->ended |= heard == 0;
    return heard;
}

ssize_t shm_stream_receive(struct shm_stream *shm, uint8_t *bytes, size_t room, long nap_us)
{
    ssize_t n = shm_stream_take(shm, bytes, room);
    if (n == 0 && nap_us) {
        shm_stream_sleep(shm, nap_us);
        n = shm_stream_take(shm, bytes, room);
        if (n == 0) { /* in this order: what was put before the end is still taken */
            shm_stream_hear(shm);
            n = shm_stream_take(shm, bytes, room);
        }
    }
    if (n == 0 && !shm->ended) {
        errno = EAGAIN;
        n = -1;
    }
    return n;
}

/* -- waiting ------------------------------------------------------------------------------ */

void shm_stream_look(struct shm_stream *shm)
{
    atomic_store(wake_of(shm, shm->end), SHM_LOOKS);
}

void shm_stream_await_doorbell(struct shm_stream *shm)
{
    atomic_store(wake_of(shm, shm->end), SHM_DOORBELL);
}

void shm_stream_ask(struct shm_stream *shm)
{
    shm_stream_hear(shm); /* before: a doorbell that is heard here rings no more */
    shm_stream_await_doorbell(shm);
}

void shm_stream_await_doorbell_if_awake(struct shm_stream *shm)
{
    uint32_t looks = SHM_LOOKS;
    atomic_compare_exchange_strong(wake_of(shm, shm->end), &looks, SHM_DOORBELL);
}

bool shm_stream_looks(const struct shm_stream *shm)
{
    return atomic_load_explicit(wake_of(shm, shm->end), memory_order_relaxed) == SHM_LOOKS;
}

bool shm_stream_has_room_again(const struct shm_stream *shm)
{
    return atomic_load(&shm->is_short) && !atomic_load(&given(shm)->full);
}

void shm_stream_sleep(struct shm_stream *shm, long nap_us)
{
    _Atomic uint32_t *wake = wake_of(shm, shm->end);
    atomic_store(wake, SHM_FUTEX);
    bool nothing = atomic_load(&received(shm)->put) == shm->taken;
    if (nothing && !shm_stream_has_room_again(shm)) {
        struct timespec nap = { .tv_nsec = nap_us * 1000 };
        futex(wake, FUTEX_WAIT, SHM_FUTEX, &nap);
    }
    atomic_store(wake, SHM_LOOKS);
}
