#define _GNU_SOURCE
#include "link.h"

#include <errno.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { FIRST_BUFFER = 64 * 1024, FRAME_HEADER = 4, MAX_OUT = 4 << 20 };

/* -- the end of a link -------------------------------------------------------------------- */

static void rouse(int event_fd)
{
    eventfd_write(event_fd, 1);
}

static void end_link(struct link *link, int state, int error_number, const char *format, ...)
{
    int open = LINK_OPEN;
    if (!atomic_compare_exchange_strong(&link->state, &open, state))
        return;
    link->error_number = error_number;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(link->error, sizeof link->error, format, arguments);
    va_end(arguments);
    rouse(link->inbox_fd);
    rouse(link->wake_fd);
    control_raise(link->control, CONTROL_LINK);
}

static bool is_open(struct link *link)
{
    return atomic_load_explicit(&link->state, memory_order_acquire) == LINK_OPEN;
}

/* -- sending; the transmit lock is held --------------------------------------------------- */

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

static void tx_message(struct link *link, struct message *message)
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

static size_t tx_begin(struct link *link)
{
    size_t at = link->out_used;
    if (tx_room(link, FRAME_HEADER))
        link->out_used += FRAME_HEADER;
    return at;
}

static void tx_end(struct link *link, size_t at)
{
    size_t length = link->out_used - at - FRAME_HEADER;
    if (link->out_used < at + FRAME_HEADER)
        return; /* there was no room: the link has ended */
    if (length == 0) {
        link->out_used = at;
        return;
    }
    uint32_t header = __builtin_bswap32((uint32_t)length);
    memcpy(link->out + at, &header, FRAME_HEADER);
}

static void tx_batch(struct link *link)
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

static void arm(struct link *link, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.fd = link->fd };
    epoll_ctl(link->epoll_fd, EPOLL_CTL_MOD, link->fd, &event);
}

/* Hands the socket what it takes; the rest waits for whoever polls the socket next. */
static void tx_push(struct link *link)
{
    size_t done = 0;
    while (done < link->out_used && is_open(link)) {
        ssize_t n = send(link->fd, link->out + done, link->out_used - done,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        link->stats.sends++;
        if (n > 0)
            done += (size_t)n;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            end_link(link, LINK_BROKEN, errno, "send: %s", strerror(errno));
    }
    memmove(link->out, link->out + done, link->out_used - done);
    link->out_used -= done;
    bool waiting = link->out_used > 0;
    if (waiting != atomic_exchange(&link->out_waiting, waiting) && waiting)
        arm(link, EPOLLIN | EPOLLOUT);
}

static void tx_flush(struct link *link)
{
    size_t at = tx_begin(link);
    tx_batch(link);
    tx_end(link, at);
    tx_push(link);
}

/* Forgets the batches that the server has acknowledged. */
static void tx_reap(struct link *link)
{
    uint64_t acknowledged = atomic_load_explicit(&link->acknowledged, memory_order_acquire);
    while (link->outstanding_count &&
           link->outstanding[link->outstanding_head].seq <= acknowledged) {
        link->in_flight -= link->outstanding[link->outstanding_head].writes;
        link->outstanding_head = (link->outstanding_head + 1) % LINK_BATCHES;
        link->outstanding_count--;
    }
}

static void say(struct link *link, struct message *message)
{
    pthread_mutex_lock(&link->tx_lock);
    size_t at = tx_begin(link);
    tx_message(link, message);
    tx_end(link, at);
    tx_push(link);
    pthread_mutex_unlock(&link->tx_lock);
}

/* -- the inbox: messages for Python ------------------------------------------------------- */

static void inbox_put(struct link *link, const uint8_t *bytes, size_t length)
{
    pthread_mutex_lock(&link->inbox_lock);
    size_t used = atomic_load(&link->inbox_used);
    if (used + length > link->inbox_size) {
        size_t size = link->inbox_size;
        while (size < used + length)
            size *= 2;
        uint8_t *grown = realloc(link->inbox, size);
        if (grown) {
            link->inbox = grown;
            link->inbox_size = size;
        }
    }
    bool room = used + length <= link->inbox_size;
    if (room) {
        memcpy(link->inbox + used, bytes, length);
        atomic_store(&link->inbox_used, used + length);
    }
    pthread_mutex_unlock(&link->inbox_lock);
    if (!room)
        end_link(link, LINK_BROKEN, ENOMEM, "no memory for %zu bytes received", length);
    else if (used == 0)
        rouse(link->inbox_fd);
}

size_t link_inbox_bytes(struct link *link)
{
    return atomic_load(&link->inbox_used);
}

size_t link_take(struct link *link, uint8_t *out, size_t room)
{
    eventfd_t drained;
    eventfd_read(link->inbox_fd, &drained);
    pthread_mutex_lock(&link->inbox_lock);
    size_t used = atomic_load(&link->inbox_used);
    size_t taken = room < used ? room : used;
    memcpy(out, link->inbox, taken);
    memmove(link->inbox, link->inbox + taken, used - taken);
    atomic_store(&link->inbox_used, used - taken);
    pthread_mutex_unlock(&link->inbox_lock);
    if (taken < used)
        rouse(link->inbox_fd);
    return taken;
}

/* -- receiving; the receive lock is held -------------------------------------------------- */

static void violated(struct link *link, const char *what, uint64_t got, uint64_t wanted)
{
    end_link(link, LINK_VIOLATED, EPROTO, "%s: got %llu, expected %llu", what,
             (unsigned long long)got, (unsigned long long)wanted);
}

static void on_interrupt(struct link *link, const struct message *message)
{
    if (message->line >= LINK_LINES) {
        violated(link, "interrupt line out of range", message->line, LINK_LINES - 1);
        return;
    }
    if (message->number <= link->line_number[message->line])
        return; /* the line has been told this, or something newer, before */
    link->line_number[message->line] = message->number;
    link->stats.interrupts++;
    struct kvm_irq_level level = { .irq = message->line, .level = message->level != 0 };
    if (ioctl(link->control->vm_fd, KVM_IRQ_LINE, &level) < 0)
        end_link(link, LINK_BROKEN, errno, "KVM_IRQ_LINE, line %u: %s", message->line,
                 strerror(errno));
}

static void on_answer(struct link *link, const struct message *message)
{
    if (message->request != link->awaited || link->answered) {
        violated(link, "answer to a request that is not awaited", message->request,
                 link->awaited);
        return;
    }
    link->answered = true;
    link->status = message->status;
    link->reply_length = message->length;
    if (message->length)
        memcpy(link->reply, message->data, message->length);
}

static bool acceptable(struct link *link, const struct message *message)
{
    if (message->seq != link->received + 1)
        violated(link, "sequence number", message->seq, link->received + 1);
    else if (message->vm_id != link->vm_id)
        violated(link, "VM identifier", message->vm_id, link->vm_id);
    else if (message->hypervisor != link->hypervisor)
        violated(link, "hypervisor identifier", message->hypervisor, link->hypervisor);
    else if (message->client_id != link->client_id)
        violated(link, "client identifier", message->client_id, link->client_id);
    return is_open(link);
}

static void acknowledged(struct link *link, uint64_t number)
{
    if (number > atomic_load(&link->acknowledged))
        atomic_store_explicit(&link->acknowledged, number, memory_order_release);
}

static void on_message(struct link *link, const struct message *message, const uint8_t *bytes,
                       size_t length)
{
    if (message->type >= MESSAGE_FEEDBACK) {
        if (!acceptable(link, message))
            return;
        atomic_store_explicit(&link->received, message->seq, memory_order_relaxed);
        acknowledged(link, message->ack);
    }
    switch (message->type) {
    case MESSAGE_FEEDBACK:
    case MESSAGE_FINISH:
        on_answer(link, message);
        break;
    case MESSAGE_INTERRUPT:
        on_interrupt(link, message);
        break;
    case MESSAGE_EVENT:
        inbox_put(link, bytes, length);
        control_raise(link->control, CONTROL_EVENT);
        break;
    case MESSAGE_EMIT:
    case MESSAGE_CONSUMED:
        inbox_put(link, bytes, length);
        break;
    case MESSAGE_PING: {
        struct message pong = { .type = MESSAGE_PONG, .token = message->token };
        say(link, &pong);
        break;
    }
    case MESSAGE_PONG:
        acknowledged(link, message->ack);
        if (message->token > link->ponged)
            atomic_store(&link->ponged, message->token);
        break;
    case MESSAGE_ACK:
        acknowledged(link, message->ack);
        break;
    default:
        violated(link, "a message that only a client sends", message->type, 0);
    }
}

static void on_payload(struct link *link, const uint8_t *in, size_t length)
{
    while (length && is_open(link)) {
        struct message message;
        long size = codec_decode(in, length, &message);
        if (size < 0) {
            bool session = size == CODEC_UNKNOWN && in[0] == 0x92 &&
                           (in[1] == MESSAGE_ERROR || in[1] == MESSAGE_BUSY);
            if (session) { /* its text is for Python to read; nothing follows it */
                inbox_put(link, in, length);
                end_link(link, LINK_CLOSED, 0, "the server ended the connection");
            } else {
                end_link(link, LINK_VIOLATED, EPROTO, "a message that can't be decoded (%s)",
                         size == CODEC_TRUNCATED  ? "cut short"
                         : size == CODEC_TOO_LONG ? "too long"
                         : size == CODEC_UNKNOWN  ? "unknown type"
                                                  : "malformed");
            }
            return;
        }
        on_message(link, &message, in, (size_t)size);
        in += size;
        length -= (size_t)size;
    }
}

static void rx_frames(struct link *link)
{
    while (link->in_used - link->in_start >= FRAME_HEADER && is_open(link)) {
        uint32_t length;
        memcpy(&length, link->in + link->in_start, FRAME_HEADER);
        length = __builtin_bswap32(length);
        if (length == 0 || length > CODEC_MAX_FRAME) {
            violated(link, "frame length", length, CODEC_MAX_FRAME);
            return;
        }
        if (link->in_used - link->in_start < FRAME_HEADER + (size_t)length)
            break;
        on_payload(link, link->in + link->in_start + FRAME_HEADER, length);
        link->in_start += FRAME_HEADER + (size_t)length;
    }
    memmove(link->in, link->in + link->in_start, link->in_used - link->in_start);
    link->in_used -= link->in_start;
    link->in_start = 0;
}

/* Makes room for the rest of a frame that is longer than the buffer. */
static bool rx_room(struct link *link)
{
    if (link->in_used < link->in_size)
        return true;
    uint8_t *grown = realloc(link->in, link->in_size * 2);
    if (!grown) {
        end_link(link, LINK_BROKEN, ENOMEM, "no memory to receive a frame");
        return false;
    }
    link->in = grown;
    link->in_size *= 2;
    return true;
}

/* Reads what is there and acts on it; false if nothing was there. */
static bool receive(struct link *link)
{
    if (!rx_room(link))
        return false;
    ssize_t n = recv(link->fd, link->in + link->in_used, link->in_size - link->in_used,
                     MSG_DONTWAIT);
    if (n > 0) {
        link->in_used += (size_t)n;
        link->stats.frames_in++;
        atomic_store_explicit(&link->heard_ns, monotonic_ns(), memory_order_relaxed);
        rx_frames(link);
        return true;
    }
    if (n == 0)
        end_link(link, LINK_CLOSED, 0, "the server closed the connection");
    else if (errno != EAGAIN && errno != EINTR)
        end_link(link, LINK_BROKEN, errno, "recv: %s", strerror(errno));
    return false;
}

/* Asks a silent server for a sign of life, and gives it up when it shows none. */
static void look_after(struct link *link)
{
    int64_t now = monotonic_ns();
    int64_t heard = atomic_load(&link->heard_ns), asked = atomic_load(&link->asked_ns);
    int64_t silent = now - (heard > asked ? heard : asked);
    if (asked > heard && now - asked >= (int64_t)(link->deadline_ns - link->heartbeat_ns)) {
        end_link(link, LINK_TIMED_OUT, ETIMEDOUT, "the server was silent for %.1f s",
                 (double)(now - heard) / 1e9);
    } else if (asked <= heard && silent >= (int64_t)link->heartbeat_ns) {
        atomic_store(&link->asked_ns, now);
        struct message ping = { .type = MESSAGE_PING, .token = 0 };
        say(link, &ping);
    }
}

static int heartbeat_ms(const struct link *link)
{
    uint64_t period = link->heartbeat_ns;
    if (link->deadline_ns - link->heartbeat_ns < period)
        period = link->deadline_ns - link->heartbeat_ns;
    return (int)(period / 1000000) + 1;
}

/* -- waiting ------------------------------------------------------------------------------ */

enum { SCORE_MAX = 16, PROBE_EVERY = 32 };

static bool should_spin(struct link *link)
{
    if (link->wait_mode != LINK_ADAPTIVE)
        return link->wait_mode == LINK_SPIN;
    return link->spin_score > 0 || ++link->waits % PROBE_EVERY == 0;
}

static void learn(struct link *link, bool slept)
{
    if (slept) {
        link->spin_score /= 2;
        link->stats.slept++;
    } else {
        link->spin_score += link->spin_score < SCORE_MAX;
        link->stats.spun++;
    }
}

static void sleep_on(struct link *link)
{
    short events = atomic_load(&link->out_waiting) ? POLLIN | POLLOUT : POLLIN;
    struct pollfd fds[] = {
        { .fd = link->fd, .events = events },
        { .fd = link->control->stop_fd, .events = POLLIN },
    };
    if (poll(fds, 2, heartbeat_ms(link)) == 0)
        look_after(link);
}

static int wait_locked(struct link *link, bool (*done)(struct link *))
{
    bool spin = should_spin(link), slept = false;
    int64_t until = spin && link->wait_mode == LINK_ADAPTIVE
                        ? monotonic_ns() + (int64_t)link->spin_ns : INT64_MAX;
    for (;;) {
        bool got = receive(link);
        if (done(link)) {
            learn(link, slept);
            return 0;
        }
        if (!is_open(link))
            return LINK_LOST;
        if (control_pending(link->control) & (CONTROL_STOP | CONTROL_LINK))
            return LINK_STOPPED;
        if (got)
            continue;
        if (atomic_load_explicit(&link->out_waiting, memory_order_relaxed)) {
            pthread_mutex_lock(&link->tx_lock);
            tx_push(link);
            pthread_mutex_unlock(&link->tx_lock);
        }
        if (spin && monotonic_ns() < until)
            continue;
        spin = false;
        slept = true;
        sleep_on(link);
    }
}

static int wait_for(struct link *link, bool (*done)(struct link *))
{
    arm(link, 0);
    pthread_mutex_lock(&link->rx_lock);
    int result = wait_locked(link, done);
    pthread_mutex_unlock(&link->rx_lock);
    arm(link, atomic_load(&link->out_waiting) ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return result;
}

static bool is_answered(struct link *link)
{
    return link->answered;
}

static bool has_ponged(struct link *link)
{
    return atomic_load(&link->ponged) >= link->pinged;
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
        .length = access->direction ? bytes : 0,
    };
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
    if (access->direction == 0) {
        if (link->reply_length != bytes) {
            violated(link, "bytes in a feedback", link->reply_length, bytes);
            return LINK_LOST;
        }
        memcpy(access->data, link->reply, bytes);
    }
    return 0;
}

static void start_flush_timer(struct link *link)
{
    struct itimerspec when = { .it_value.tv_nsec = (long)link->flush_after_ns };
    timerfd_settime(link->timer_fd, 0, &when, NULL);
}

int link_post(struct link *link, const struct link_access *access)
{
    if (!is_open(link))
        return LINK_LOST;
    struct posted_write write = {
        .device_id = access->device_id,
        .space = access->space,
        .address = access->address,
        .size = access->size,
        .time_ns = control_time_ns(link->control),
    };
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
    if (link->batch_writes == LINK_BATCH_WRITES)
        tx_flush(link);
    else if (link->batch_writes == 1)
        start_flush_timer(link);
    pthread_mutex_unlock(&link->tx_lock);
    return 0;
}

int link_fence(struct link *link)
{
    pthread_mutex_lock(&link->tx_lock);
    tx_reap(link);
    bool clear = link->in_flight == 0;
    if (!clear) {
        struct message ping = { .type = MESSAGE_PING, .token = ++link->pinged };
        size_t at = tx_begin(link);
        tx_batch(link);
        tx_message(link, &ping);
        tx_end(link, at);
        tx_push(link);
    }
    pthread_mutex_unlock(&link->tx_lock);
    return clear ? 0 : wait_for(link, has_ponged);
}

int link_send(struct link *link, const struct message *message)
{
    struct message stamped = *message;
    pthread_mutex_lock(&link->tx_lock);
    size_t at = tx_begin(link);
    tx_batch(link);
    tx_message(link, &stamped);
    tx_end(link, at);
    tx_push(link);
    pthread_mutex_unlock(&link->tx_lock);
    return is_open(link) ? 0 : LINK_LOST;
}

/* -- the event thread --------------------------------------------------------------------- */

static void serve_socket(struct link *link)
{
    if (atomic_load(&link->out_waiting)) {
        pthread_mutex_lock(&link->tx_lock);
        tx_push(link);
        if (!atomic_load(&link->out_waiting))
            arm(link, EPOLLIN);
        pthread_mutex_unlock(&link->tx_lock);
    }
    if (pthread_mutex_trylock(&link->rx_lock) == 0) { /* else a vCPU reads */
        while (receive(link))
            ;
        pthread_mutex_unlock(&link->rx_lock);
    }
}

static void serve_timer(struct link *link)
{
    uint64_t expirations;
    if (read(link->timer_fd, &expirations, sizeof expirations) < 0)
        return;
    pthread_mutex_lock(&link->tx_lock);
    tx_flush(link);
    pthread_mutex_unlock(&link->tx_lock);
}

void link_serve(struct link *link)
{
    while (!atomic_load(&link->closing) && is_open(link)) {
        struct epoll_event events[3];
        int n = epoll_wait(link->epoll_fd, events, 3, heartbeat_ms(link));
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == link->fd)
                serve_socket(link);
            else if (events[i].data.fd == link->timer_fd)
                serve_timer(link);
        }
        look_after(link);
    }
}

void link_close(struct link *link)
{
    pthread_mutex_lock(&link->tx_lock);
    if (is_open(link))
        tx_flush(link);
    pthread_mutex_unlock(&link->tx_lock);
    atomic_store(&link->closing, true);
    rouse(link->wake_fd);
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
    link->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->inbox_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return link->epoll_fd >= 0 && link->timer_fd >= 0 && link->wake_fd >= 0 &&
           link->inbox_fd >= 0 && watch(link, link->fd) == 0 &&
           watch(link, link->timer_fd) == 0 && watch(link, link->wake_fd) == 0;
}

static bool make_buffers(struct link *link)
{
    link->out_size = link->in_size = link->inbox_size = FIRST_BUFFER;
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
    link->epoll_fd = link->timer_fd = link->wake_fd = link->inbox_fd = -1;
    link->fd = setup->fd;
    link->control = control;
    link->server_id = setup->server_id;
    link->vm_id = setup->vm_id;
    link->client_id = setup->client_id;
    link->hypervisor = setup->hypervisor;
    link->sent = setup->sent;
    link->received = setup->received;
    link->acknowledged = setup->sent;
    link->window = setup->window;
    link->wait_mode = setup->wait_mode;
    link->spin_ns = setup->spin_ns;
    link->spin_score = SCORE_MAX;
    link->heartbeat_ns = setup->heartbeat_ns;
    link->deadline_ns = setup->deadline_ns;
    link->flush_after_ns = setup->flush_after_ns;
    link->heard_ns = monotonic_ns();
    pthread_mutex_init(&link->tx_lock, NULL);
    pthread_mutex_init(&link->rx_lock, NULL);
    pthread_mutex_init(&link->inbox_lock, NULL);
    if (!open_descriptors(link) || !make_buffers(link)) {
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
    close_descriptor(link->epoll_fd);
    close_descriptor(link->timer_fd);
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
