#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "link/link_inner.h"

/* -- what a wait can be for --------------------------------------------------------------- */

static bool is_answered(struct link *link)
{
    return link->answered;
}

static bool window_is_open(struct link *link)
{
    pthread_mutex_lock(&link->tx_lock);
    tx_reap(link);
    bool open = link->in_flight < link->window && link->outstanding_count < LINK_BATCHES;
    pthread_mutex_unlock(&link->tx_lock);
    return open;
}

/* -- what the vCPU calls ------------------------------------------------------------------ */

int link_request(struct link *link, const struct link_access *access)
{
    uint32_t bytes = access->size * access->elements;
    struct message message = {
        .type = MESSAGE_REQUEST,
        .device_id = access->device_id,
        .direction = access->direction,
        .space = access->space,
        .address = access->address,
        .size = access->size,
        .elements = access->elements,
        .time_ns = control_time_ns(link->control),
        .data = access->data,
        .length = access->direction == DIRECTION_OUT ? bytes : 0,
    };
    if ((uint64_t)access->size * access->elements > CODEC_MAX_DATA)
        return LINK_REFUSED;
    pthread_mutex_lock(&link->tx_lock);
    size_t at = tx_begin(link);
    tx_batch(link);
    link->answered = false;
    link->awaited = link->sent + 1;
    tx_message(link, &message);
    tx_end(link, at);
    tx_push(link);
    link->stats.requests++;
    pthread_mutex_unlock(&link->tx_lock);
    int result = wait_for(link, is_answered);
    if (result < 0)
        return result;
    link->awaited = 0;
    if (link->status != 0)
        return LINK_REFUSED;
    if (access->direction == DIRECTION_IN) {
        if (link->reply_length != bytes) {
            protocol_error(link, "bytes in a feedback", link->reply_length, bytes);
            return LINK_LOST;
        }
        memcpy(access->data, link->reply, bytes);
    }
    return 0;
}

/*
 * A write has joined the batch. One that comes after a pause goes at once: the guest may be about to
 * halt for what it causes. Those that follow each other closely go together, when the batch is
 * full or its first one has waited for flush_after_ns; and for the last of them there is a timer.
 */
static void flush_in_time(struct link *link, uint64_t time_ns)
{
    bool pause = time_ns - link->posted_ns > link->flush_after_ns;
    link->posted_ns = time_ns;
    if (link->batch_writes == 1)
        link->batch_ns = time_ns;
    bool overdue = time_ns - link->batch_ns >= link->flush_after_ns;
    if (pause || overdue || link->batch_writes == LINK_BATCH_WRITES) {
        tx_flush(link);
        link->flushes++;
    } else if (!link->timer_set) {
        start_flush_timer(link, link->flush_after_ns);
    }
}

int link_post_at(struct link *link, const struct link_access *access, uint64_t time_ns,
                 uint64_t *seq)
{
    if (!is_open(link))
        return LINK_LOST;
    struct posted_write write = {
        .device_id = access->device_id,
        .direction = access->direction,
        .space = access->space,
        .address = access->address,
        .size = access->size,
        .time_ns = time_ns,
    };
    if (access->direction == DIRECTION_OUT)
        memcpy(&write.value, access->data, access->size);
    pthread_mutex_lock(&link->tx_lock);
    tx_reap(link);
    bool full = link->in_flight >= link->window || link->outstanding_count >= LINK_BATCHES;
    if (full) {
        link->stats.stalls++;
        tx_flush(link);
        pthread_mutex_unlock(&link->tx_lock);
        int result = wait_for(link, window_is_open);
        if (result < 0)
            return result;
        pthread_mutex_lock(&link->tx_lock);
    }
    codec_encode_write(&write, link->batch + link->batch_writes * CODEC_WRITE_BYTES);
    link->batch_writes++;
    link->in_flight++;
    link->stats.posted++;
    *seq = link->sent + 1; /* whatever is sent next, this batch goes first */
    flush_in_time(link, time_ns);
    pthread_mutex_unlock(&link->tx_lock);
    return 0;
}

bool link_has_room(struct link *link)
{
    return window_is_open(link);
}

void link_flush(struct link *link)
{
    pthread_mutex_lock(&link->tx_lock);
    tx_flush(link);
    pthread_mutex_unlock(&link->tx_lock);
}

int link_send(struct link *link, const struct message *message)
{
    struct message stamped = *message;
    if (codec_size(message) < 0)
        return LINK_REFUSED;
    pthread_mutex_lock(&link->tx_lock);
    size_t at = tx_begin(link);
    tx_batch(link);
    tx_message(link, &stamped);
    tx_end(link, at);
    tx_push(link);
    pthread_mutex_unlock(&link->tx_lock);
    return is_open(link) ? 0 : LINK_LOST;
}

/* -- making and freeing ------------------------------------------------------------------- */

static int watch(struct link *link, int fd)
{
    struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
    return epoll_ctl(link->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static bool open_descriptors(struct link *link)
{
    link->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    link->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    link->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    link->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->inbox_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return link->epoll_fd >= 0 && link->timer_fd >= 0 && link->tick_fd >= 0 &&
           link->wake_fd >= 0 && link->inbox_fd >= 0 && watch(link, link->fd) == 0 &&
           watch(link, link->timer_fd) == 0 && watch(link, link->tick_fd) == 0 &&
           watch(link, link->wake_fd) == 0;
}

/* Whoever does not want to sleep in a system call says so in each; sleeping ones end by themselves. */
static bool may_sleep(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    struct timeval nap = { .tv_usec = LINK_NAP_US };
    return flags >= 0 && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 &&
           setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &nap, sizeof nap) == 0;
}

static bool make_buffers(struct link *link)
{
    link->out_size = link->in_size = link->inbox_size = LINK_FIRST_BUFFER;
    link->out = malloc(link->out_size);
    link->in = malloc(link->in_size);
    link->inbox = malloc(link->inbox_size);
    return link->out && link->in && link->inbox;
}

static void take_rest(struct link *link, const struct link_setup *setup)
{
    pthread_mutex_lock(&link->rx_lock);
    for (size_t done = 0; done < setup->rest_length && rx_room(link);) {
        size_t room = link->in_size - link->in_used;
        size_t left = setup->rest_length - done;
        size_t part = left < room ? left : room;
        memcpy(link->in + link->in_used, setup->rest + done, part);
        link->in_used += part;
        done += part;
        rx_frames(link);
    }
    pthread_mutex_unlock(&link->rx_lock);
}

struct link *link_new(struct control *control, const struct link_setup *setup)
{
    struct link *link = calloc(1, sizeof *link);
    if (!link)
        return NULL;
    link->epoll_fd = link->timer_fd = link->tick_fd = link->wake_fd = link->inbox_fd = -1;
    link->fd = setup->fd;
    link->control = control;
    link->server_id = setup->server_id;
    link->source = setup->source;
    link->vm_id = setup->vm_id;
    link->client_id = setup->client_id;
    link->hypervisor = setup->hypervisor;
    link->sent = setup->sent;
    link->received = setup->received;
    link->acknowledged = setup->sent;
    link->window = setup->window;
    link->spin_wait = spin_wait_new(setup->wait_mode, (int64_t)setup->spin_ns);
    link->heartbeat_ns = setup->heartbeat_ns;
    link->deadline_ns = setup->deadline_ns;
    link->flush_after_ns = setup->flush_after_ns;
    link->leases = setup->leases;
    link->settled = setup->sent;
    link->heard_ns = monotonic_ns();
    pthread_mutex_init(&link->tx_lock, NULL);
    pthread_mutex_init(&link->rx_lock, NULL);
    pthread_mutex_init(&link->inbox_lock, NULL);
    bool has_way = setup->memory_fd < 0 ||
                   shm_stream_open(&link->shm, setup->fd, setup->memory_fd) == 0;
    if (!has_way || !open_descriptors(link) || !may_sleep(link->fd) || !make_buffers(link)) {
        int error = errno;
        link_free(link);
        errno = error;
        return NULL;
    }
    take_rest(link, setup);
    return link;
}

static void close_descriptor(int fd)
{
    if (fd >= 0)
        close(fd);
}

void link_free(struct link *link)
{
    if (!link)
        return;
    spin_wait_end(&link->spin_wait);
    shm_stream_close(&link->shm);
    close_descriptor(link->epoll_fd);
    close_descriptor(link->timer_fd);
    close_descriptor(link->tick_fd);
    close_descriptor(link->wake_fd);
    close_descriptor(link->inbox_fd);
    pthread_mutex_destroy(&link->tx_lock);
    pthread_mutex_destroy(&link->rx_lock);
    pthread_mutex_destroy(&link->inbox_lock);
    free(link->out);
    free(link->in);
    free(link->inbox);
    free(link);
}
