#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "link/link_inner.h"

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
        wake(link->inbox_fd);
}

size_t link_inbox_bytes(struct link *link)
{
    return atomic_load(&link->inbox_used);
}

/* What a flood has made of an empty inbox is given back. */
static void shrink_inbox(struct link *link)
{
    uint8_t *small = realloc(link->inbox, LINK_FIRST_BUFFER);
    if (!small)
        return;
    link->inbox = small;
    link->inbox_size = LINK_FIRST_BUFFER;
}

bool inbox_is_full(struct link *link)
{
    return atomic_load_explicit(&link->inbox_used, memory_order_relaxed) >= LINK_INBOX_FULL &&
           !atomic_load_explicit(&link->settling, memory_order_relaxed);
}

size_t link_take(struct link *link, uint8_t *out, size_t room)
{
    eventfd_t drained;
    eventfd_read(link->inbox_fd, &drained);
    pthread_mutex_lock(&link->inbox_lock);
    size_t used = atomic_load(&link->inbox_used);
    size_t taken = room < used ? room : used;
    if (taken)
        memcpy(out, link->inbox, taken);
    memmove(link->inbox, link->inbox + taken, used - taken);
    atomic_store(&link->inbox_used, used - taken);
    if (taken == used && link->inbox_size > LINK_INBOX_KEPT)
        shrink_inbox(link);
    pthread_mutex_unlock(&link->inbox_lock);
    if (taken < used)
        wake(link->inbox_fd);
    return taken;
}

/* -- what comes in ------------------------------------------------------------------------ */

void protocol_error(struct link *link, const char *what, uint64_t got, uint64_t wanted)
{
    end_link(link, LINK_VIOLATED, EPROTO, "%s: got %llu, expected %llu", what,
             (unsigned long long)got, (unsigned long long)wanted);
}

static void on_interrupt(struct link *link, const struct message *message)
{
    if (message->line >= LINK_LINES) {
        protocol_error(link, "interrupt line out of range", message->line, LINK_LINES - 1);
        return;
    }
    if (message->number <= link->line_number[message->line])
        return; /* the line has been told this, or something newer, before */
    link->line_number[message->line] = message->number;
    link->stats.interrupts++;
    if (control_line(link->control, link->source, message->line, message->level != 0) < 0)
        end_link(link, LINK_BROKEN, errno, "KVM_IRQ_LINE, line %u: %s", message->line,
                 strerror(errno));
}

static void on_lease(struct link *link, const struct message *message)
{
    uint64_t settled = atomic_load_explicit(&link->settled, memory_order_relaxed);
    const char *wrong = leases_take(link->leases, message, settled);
    link->stats.leases++;
    if (wrong)
        end_link(link, LINK_VIOLATED, EPROTO, "%s: device %u, address %#llx", wrong,
                 message->device_id, (unsigned long long)message->address);
}

static void on_answer(struct link *link, const struct message *message)
{
    if (message->request != link->awaited || link->answered) {
        protocol_error(link, "answer to a request that is not awaited", message->request,
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
        protocol_error(link, "sequence number", message->seq, link->received + 1);
    else if (message->vm_id != link->vm_id)
        protocol_error(link, "VM identifier", message->vm_id, link->vm_id);
    else if (message->hypervisor != link->hypervisor)
        protocol_error(link, "hypervisor identifier", message->hypervisor, link->hypervisor);
    else if (message->client_id != link->client_id)
        protocol_error(link, "client identifier", message->client_id, link->client_id);
    return is_open(link);
}

static void acknowledged(struct link *link, uint64_t number)
{
    uint64_t sent = atomic_load(&link->sent);
    if (number > sent)
        protocol_error(link, "acknowledged number", number, sent);
    else if (number > atomic_load(&link->acknowledged))
        atomic_store_explicit(&link->acknowledged, number, memory_order_release);
}

/* By an answer, PONG or ACK: what the messages up to this number have caused has been told. */
static void settled(struct link *link, uint64_t number)
{
    acknowledged(link, number);
    if (is_open(link) && number > atomic_load_explicit(&link->settled, memory_order_relaxed))
        atomic_store_explicit(&link->settled, number, memory_order_release);
}

static void on_message(struct link *link, const struct message *message, const uint8_t *bytes,
                       size_t length)
{
    if (message->type >= MESSAGE_FEEDBACK) {
        if (!acceptable(link, message))
            return;
        atomic_store_explicit(&link->received, message->seq, memory_order_relaxed);
        acknowledged(link, message->ack);
        if (!is_open(link))
            return;
    }
    switch (message->type) {
    case MESSAGE_FEEDBACK:
    case MESSAGE_FINISH:
        settled(link, message->ack);
        on_answer(link, message);
        break;
    case MESSAGE_LEASE:
        on_lease(link, message);
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
    case MESSAGE_STATE:
    case MESSAGE_ADDED:
        inbox_put(link, bytes, length);
        break;
    case MESSAGE_PING: {
        struct message pong = { .type = MESSAGE_PONG, .token = message->token };
        say(link, &pong);
        break;
    }
    case MESSAGE_PONG:
        settled(link, message->ack);
        if (message->token > link->ponged)
            atomic_store(&link->ponged, message->token);
        break;
    case MESSAGE_ACK:
        settled(link, message->ack);
        break;
    default:
        protocol_error(link, "a message that only a client sends", message->type, 0);
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

void rx_frames(struct link *link)
{
    while (link->in_used - link->in_start >= LINK_FRAME_HEADER && is_open(link)) {
        uint32_t length;
        memcpy(&length, link->in + link->in_start, LINK_FRAME_HEADER);
        length = __builtin_bswap32(length);
        if (length == 0 || length > CODEC_MAX_FRAME) {
            protocol_error(link, "frame length", length, CODEC_MAX_FRAME);
            return;
        }
        if (link->in_used - link->in_start < LINK_FRAME_HEADER + (size_t)length)
            break;
        on_payload(link, link->in + link->in_start + LINK_FRAME_HEADER, length);
        link->in_start += LINK_FRAME_HEADER + (size_t)length;
    }
    memmove(link->in, link->in + link->in_start, link->in_used - link->in_start);
    link->in_used -= link->in_start;
    link->in_start = 0;
}

/* Makes room for the rest of a frame that is longer than the buffer. */
bool rx_room(struct link *link)
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

static ssize_t take_in(struct link *link, uint8_t *to, size_t room, enum how_to_receive how)
{
    if (!link->shm.page)
        return recv(link->fd, to, room, how == RX_SLEEP ? 0 : MSG_DONTWAIT);
    if (how == RX_ASK)
        shm_stream_ask(&link->shm);
    return shm_stream_receive(&link->shm, to, room, how == RX_SLEEP ? LINK_NAP_US : 0);
}

/*
 * Nothing is read while Python has so much to take. The server is told all the same that somebody
 * is here, and whether it is can't be seen meanwhile. What is left in memory rings no doorbell again:
 * the event thread is to look by itself, also if the one who left it is a vCPU that waits no longer.
 */
static void hold_back(struct link *link)
{
    atomic_store(&link->held_back, true);
    pthread_mutex_lock(&link->tx_lock);
    start_flush_timer(link, LINK_FULL_NAP_MS * 1000000ull);
    pthread_mutex_unlock(&link->tx_lock);
    struct timespec nap = { .tv_nsec = LINK_FULL_NAP_MS * 1000000L };
    int64_t now = monotonic_ns();
    atomic_store_explicit(&link->heard_ns, now, memory_order_relaxed);
    if (now - atomic_load(&link->asked_ns) >= (int64_t)link->heartbeat_ns) {
        struct message ping = { .type = MESSAGE_PING, .token = 0 };
        atomic_store(&link->asked_ns, now);
        say(link, &ping);
    }
    nanosleep(&nap, NULL);
}

bool receive(struct link *link, enum how_to_receive how)
{
    if (inbox_is_full(link)) {
        hold_back(link);
        return false;
    }
    if (!rx_room(link))
        return false;
    ssize_t n = take_in(link, link->in + link->in_used, link->in_size - link->in_used, how);
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
