#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include "link/link_inner.h"

enum { MAX_OUT = 4 << 20 };

static bool tx_room(struct link *link, size_t bytes)
{
    size_t wanted = link->out_used + bytes;
    if (wanted <= link->out_size)
        return true;
    size_t size = link->out_size;
    while (size < wanted)
        size *= 2;
    uint8_t *grown = wanted <= MAX_OUT ? realloc(link->out, size) : NULL;
    if (!grown) {
        end_link(link, LINK_BROKEN, ENOBUFS, "no room for %zu bytes to send", wanted);
        return false;
    }
    link->out = grown;
    link->out_size = size;
    return true;
}

void tx_message(struct link *link, struct message *message)
{
    if (message->type >= MESSAGE_REQUEST) {
        message->seq = ++link->sent;
        message->server_id = link->server_id;
        message->vm_id = link->vm_id;
        message->hypervisor = link->hypervisor;
        message->client_id = link->client_id;
    }
    message->ack = atomic_load_explicit(&link->received, memory_order_relaxed);
    long size = codec_size(message);
    if (size < 0 || !tx_room(link, (size_t)size))
        return;
    link->out_used += (size_t)codec_encode(message, link->out + link->out_used);
}

size_t tx_begin(struct link *link)
{
    size_t at = link->out_used;
    if (tx_room(link, LINK_FRAME_HEADER))
        link->out_used += LINK_FRAME_HEADER;
    return at;
}

void tx_end(struct link *link, size_t at)
{
    size_t length = link->out_used - at - LINK_FRAME_HEADER;
    if (link->out_used < at + LINK_FRAME_HEADER)
        return; /* there was no room: the link has ended */
    if (length == 0) {
        link->out_used = at;
        return;
    }
    uint32_t header = __builtin_bswap32((uint32_t)length);
    memcpy(link->out + at, &header, LINK_FRAME_HEADER);
}

void tx_batch(struct link *link)
{
    if (link->batch_writes == 0)
        return;
    struct message message = { .type = MESSAGE_BATCH, .data = link->batch,
                               .length = link->batch_writes };
    tx_message(link, &message);
    uint32_t slot = (link->outstanding_head + link->outstanding_count) % LINK_BATCHES;
    link->outstanding[slot].seq = message.seq;
    link->outstanding[slot].writes = link->batch_writes;
    link->outstanding_count++;
    link->batch_writes = 0;
    link->stats.batches++;
}

void arm(struct link *link, uint32_t events)
{
    if (link->shm.page) {
        if (events)
            shm_stream_await_doorbell(&link->shm);
        else
            shm_stream_look(&link->shm);
        return;
    }
    struct epoll_event event = { .events = events, .data.fd = link->fd };
    epoll_ctl(link->epoll_fd, EPOLL_CTL_MOD, link->fd, &event);
}

void arm_for_room(struct link *link)
{
    if (link->shm.page)
        shm_stream_await_doorbell_if_awake(&link->shm);
    else
        arm(link, EPOLLIN | EPOLLOUT);
}

static ssize_t give_out(struct link *link, const uint8_t *bytes, size_t length)
{
    link->stats.sends++;
    if (!link->shm.page)
        return send(link->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    ssize_t n = shm_stream_give(&link->shm, bytes, length);
    if (n == 0) {
        errno = EAGAIN;
        n = -1;
    }
    return n;
}

static void push_some(struct link *link)
{
    size_t done = 0;
    while (done < link->out_used && is_open(link)) {
        ssize_t n = give_out(link, link->out + done, link->out_used - done);
        if (n > 0)
            done += (size_t)n;
        else if (errno == EAGAIN)
            break;
        else if (errno == EPIPE || errno == ECONNRESET)
            done = link->out_used; /* it has gone; its last words, still to be read, say why */
        else if (errno != EINTR)
            end_link(link, LINK_BROKEN, errno, "send: %s", strerror(errno));
    }
    memmove(link->out, link->out + done, link->out_used - done);
    link->out_used -= done;
    bool waiting = link->out_used > 0;
    if (waiting != atomic_exchange(&link->out_waiting, waiting) && waiting) {
        atomic_store(&link->watched_for_room, true);
        arm_for_room(link);
    }
}

void tx_push(struct link *link)
{
    do
        push_some(link);
    while (link->shm.page && atomic_load(&link->out_waiting) &&
           shm_stream_has_room_again(&link->shm) && is_open(link));
}

void push_rest(struct link *link)
{
    if (!atomic_load(&link->out_waiting))
        return;
    pthread_mutex_lock(&link->tx_lock);
    tx_push(link);
    pthread_mutex_unlock(&link->tx_lock);
}

void tx_flush(struct link *link)
{
    size_t at = tx_begin(link);
    tx_batch(link);
    tx_end(link, at);
    tx_push(link);
}

/* Forgets the batches that the server has acknowledged. */
void tx_reap(struct link *link)
{
    uint64_t acknowledged = atomic_load_explicit(&link->acknowledged, memory_order_acquire);
    while (link->outstanding_count &&
           link->outstanding[link->outstanding_head].seq <= acknowledged) {
        link->in_flight -= link->outstanding[link->outstanding_head].writes;
        link->outstanding_head = (link->outstanding_head + 1) % LINK_BATCHES;
        link->outstanding_count--;
    }
}

void say(struct link *link, struct message *message)
{
    pthread_mutex_lock(&link->tx_lock);
    size_t at = tx_begin(link);
    tx_message(link, message);
    tx_end(link, at);
    tx_push(link);
    pthread_mutex_unlock(&link->tx_lock);
}

void start_flush_timer(struct link *link, uint64_t after_ns)
{
    struct itimerspec when = {
        .it_value.tv_sec = (time_t)(after_ns / 1000000000),
        .it_value.tv_nsec = (long)(after_ns % 1000000000),
    };
    timerfd_settime(link->timer_fd, 0, &when, NULL);
    link->timer_set = true;
}

bool link_is_clear(struct link *link)
{
    pthread_mutex_lock(&link->tx_lock);
    tx_reap(link);
    bool clear = link->in_flight == 0;
    pthread_mutex_unlock(&link->tx_lock);
    return clear;
}
