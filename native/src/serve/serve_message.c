/* The data loop's input: bytes into frames, frames into messages, messages into accesses. */
#include <stdlib.h>
#include <string.h>

#include "serve/serve_inner.h"

/* VM time may be so far ahead of what the server reckons (MAX_TIME_JUMP_NS in limits.py). */
static const int64_t max_time_jump_ns = 60000000000;

/* -- accesses and their handles ----------------------------------------------------------- */

static size_t place_of(const struct serve_stream *stream, const struct serve_access *wanted)
{
    uint64_t hash = wanted->address ^ (uint64_t)wanted->device_id << 32 ^
                    (uint64_t)(wanted->size | wanted->direction << 4 | wanted->space << 5) << 24;
    hash *= 0x9e3779b97f4a7c15;
    size_t at = (size_t)(hash >> 40) & (stream->access_room - 1);
    for (;; at = (at + 1) & (stream->access_room - 1)) {
        const struct serve_access *found = &stream->accesses[at];
        if (found->handle < 0 ||
            (found->address == wanted->address && found->device_id == wanted->device_id &&
             found->size == wanted->size && found->direction == wanted->direction &&
             found->space == wanted->space))
            return at;
    }
}

static bool make_room(struct serve_stream *stream)
{
    if (stream->access_count * 2 < stream->access_room)
        return true;
    struct serve_stream fresh = *stream;
    fresh.access_room = stream->access_room ? stream->access_room * 2 : 32;
    fresh.accesses = malloc(fresh.access_room * sizeof *fresh.accesses);
    if (!fresh.accesses)
        return false;
    for (size_t i = 0; i < fresh.access_room; i++)
        fresh.accesses[i].handle = -1;
    for (size_t i = 0; i < stream->access_room; i++)
        if (stream->accesses[i].handle >= 0)
            fresh.accesses[place_of(&fresh, &stream->accesses[i])] = stream->accesses[i];
    free(stream->accesses);
    stream->accesses = fresh.accesses;
    stream->access_room = fresh.access_room;
    return true;
}

int serve_bind(struct serve_stream *stream, const struct serve_access *access)
{
    if (stream->access_count >= SERVE_MAX_ACCESSES || !make_room(stream))
        return -1;
    stream->accesses[place_of(stream, access)] = *access;
    stream->access_count++;
    return 0;
}

void serve_unbind(struct serve_stream *stream)
{
    for (size_t i = 0; i < stream->access_room; i++)
        stream->accesses[i].handle = -1;
    stream->access_count = 0;
}

/* The handle of loop->access; below 0 if it has none. */
static int32_t handle_of(struct serve_loop *loop)
{
    const struct serve_stream *stream = loop->current;
    if (stream->access_room == 0)
        return -1;
    return stream->accesses[place_of(stream, &loop->access)].handle;
}

/* -- messages ----------------------------------------------------------------------------- */

/* Hands what follows to Python, as a frame: one message, or all to the frame's end. */
static int hand_over(struct serve_loop *loop, size_t length)
{
    uint32_t header = __builtin_bswap32((uint32_t)length);
    uint8_t *start = loop->turn.buffer + loop->turn.at - SERVE_HEADER; /* these bytes have been read */
    memcpy(start, &header, SERVE_HEADER);
    loop->bytes = start;
    loop->bytes_used = SERVE_HEADER + length;
    loop->turn.at += length;
    loop->exchange.pass = 0;
    return SERVE_BYTES;
}

static bool is_in_turn(const struct serve_stream *stream, const struct message *message)
{
    return message->seq == stream->counters.received + 1 &&
           message->ack <= stream->counters.sent && message->server_id == stream->server_id &&
           message->vm_id == stream->vm_id && message->hypervisor == stream->hypervisor &&
           message->client_id == stream->client_id;
}

static bool is_likely(const struct serve_loop *loop, uint64_t time_ns)
{
    int64_t likely_ns = loop->now_ns + loop->current->clock.offset_ns + max_time_jump_ns;
    return (int64_t)time_ns >= 0 && (int64_t)time_ns <= likely_ns;
}

static bool is_size(uint8_t size)
{
    return size == 1 || size == 2 || size == 4 || size == 8;
}

static void take(struct serve_loop *loop, const struct message *message, size_t size,
                 uint64_t time_ns)
{
    struct serve_stream *stream = loop->current;
    stream->counters.received = message->seq;
    if (message->ack > stream->counters.acknowledged)
        stream->counters.acknowledged = message->ack;
    int64_t offset_ns = (int64_t)time_ns - loop->now_ns;
    if (offset_ns > stream->clock.offset_ns)
        stream->clock.offset_ns = offset_ns;
    loop->turn.pending = message->type;
    loop->turn.at += size;
}

static int on_request(struct serve_loop *loop, const struct message *message, size_t size)
{
    if (!is_in_turn(loop->current, message) || !is_likely(loop, message->time_ns) ||
        !is_size(message->size) || message->elements != 1 || message->direction > 1 ||
        message->length != (message->direction ? message->size : 0u))
        return hand_over(loop, size);
    loop->access = (struct serve_access){ message->address, message->device_id,
                                          message->direction, message->space, message->size, 0 };
    int32_t handle = handle_of(loop);
    if (handle < 0)
        return SERVE_UNKNOWN;
    uint64_t value = 0;
    memcpy(&value, message->data, message->length);
    loop->exchange.value = value;
    loop->exchange.time_ns = message->time_ns;
    loop->turn.pending_direction = message->direction;
    loop->turn.pending_size = message->size;
    take(loop, message, size, message->time_ns);
    return handle;
}

static const uint64_t masks[9] = { [1] = 0xff, [2] = 0xffff, [4] = 0xffffffff, [8] = UINT64_MAX };

/* Decodes one access of a batch; false if it is for Python to refuse. */
static bool one_of_batch(struct serve_loop *loop, const uint8_t *in, uint32_t index)
{
    struct posted_write write;
    if (codec_decode_write(in, &write) < 0 || !is_size(write.size) || write.direction > 1 ||
        !is_likely(loop, write.time_ns))
        return false;
    loop->access = (struct serve_access){ write.address, write.device_id, write.direction,
                                          write.space, write.size, 0 };
    loop->values[index] = write.value & masks[write.size];
    loop->times[index] = write.time_ns;
    return true;
}

static int on_batch(struct serve_loop *loop, const struct message *message, size_t size)
{
    struct serve_counters *counters = &loop->current->counters;
    uint32_t count = message->length, runs = 0;
    if (!is_in_turn(loop->current, message) || count == 0 ||
        counters->posted + count - counters->window_start > loop->current->window)
        return hand_over(loop, size);
    int32_t before = -1;
    for (uint32_t i = 0; i < count; i++) {
        if (!one_of_batch(loop, message->data + (size_t)i * CODEC_WRITE_BYTES, i))
            return hand_over(loop, size);
        int32_t handle = handle_of(loop);
        if (handle < 0)
            return SERVE_UNKNOWN;
        loop->handles[i] = (uint32_t)handle;
        if (handle != before) {
            loop->run_handles[runs] = (uint32_t)handle;
            loop->run_counts[runs++] = 0;
            before = handle;
        }
        loop->run_counts[runs - 1]++;
    }
    counters->posted += count;
    loop->exchange.count = count;
    loop->exchange.runs = runs;
    loop->turn.pending_count = count;
    take(loop, message, size, loop->times[count - 1]);
    return SERVE_BATCH;
}

static int on_message(struct serve_loop *loop)
{
    const struct serve_stream *stream = loop->current;
    size_t left = loop->turn.frame_end - loop->turn.at;
    struct message message;
    if (!stream->direct || !stream->clock.running)
        return hand_over(loop, left);
    long size = codec_decode(loop->turn.buffer + loop->turn.at, left, &message);
    if (size < 0)
        return hand_over(loop, left);
    if (!loop->exchange.pass && message.type == MESSAGE_REQUEST)
        return on_request(loop, &message, (size_t)size);
    if (!loop->exchange.pass && message.type == MESSAGE_BATCH)
        return on_batch(loop, &message, (size_t)size);
    return hand_over(loop, (size_t)size);
}

/* Goes to the next frame; false if it is not there whole. */
static bool next_frame(struct serve_loop *loop)
{
    uint32_t length;
    size_t left = loop->turn.end - loop->turn.at;
    if (left < SERVE_HEADER)
        return false;
    memcpy(&length, loop->turn.buffer + loop->turn.at, SERVE_HEADER);
    length = __builtin_bswap32(length);
    if (length <= CODEC_MAX_FRAME && left < SERVE_HEADER + (size_t)length)
        return false;
    loop->turn.frame_end = loop->turn.at + SERVE_HEADER + length;
    return true;
}

/* A frame without messages, or too long: Python finds the words for it. */
static int hand_over_raw(struct serve_loop *loop)
{
    loop->bytes = loop->turn.buffer + loop->turn.at;
    loop->bytes_used = SERVE_HEADER;
    loop->turn.frame_end = loop->turn.at = loop->turn.frame_end > loop->turn.end ? loop->turn.end : loop->turn.frame_end;
    return SERVE_BYTES;
}

int serve_messages(struct serve_loop *loop)
{
    if (loop->turn.at == loop->turn.frame_end) {
        if (!next_frame(loop))
            return SERVE_NOTHING;
        if (loop->turn.frame_end - loop->turn.at == SERVE_HEADER || loop->turn.frame_end > loop->turn.end)
            return hand_over_raw(loop);
        loop->turn.at += SERVE_HEADER;
    }
    return on_message(loop);
}

/* -- answers ------------------------------------------------------------------------------ */

static bool answer_request(struct serve_loop *loop)
{
    struct serve_stream *stream = loop->current;
    struct serve_exchange *exchange = &loop->exchange;
    struct message message = {
        .type = loop->turn.pending_direction ? MESSAGE_FINISH : MESSAGE_FEEDBACK,
        .seq = ++stream->counters.sent,
        .ack = stream->counters.received,
        .vm_id = stream->vm_id,
        .hypervisor = stream->hypervisor,
        .client_id = stream->client_id,
        .request = stream->counters.received,
        .status = (uint8_t)exchange->status,
        .data = (const uint8_t *)&exchange->answer,
        .length = exchange->status || loop->turn.pending_direction ? 0 : loop->turn.pending_size,
    };
    stream->counters.confirmed = stream->counters.posted;
    exchange->status = 0;
    return out_message(loop, &message);
}

static bool acknowledge_batch(struct serve_loop *loop)
{
    struct serve_counters *counters = &loop->current->counters;
    counters->unacknowledged += loop->turn.pending_count;
    if (counters->unacknowledged < loop->current->ack_every && !loop->exchange.ack)
        return true;
    struct message message = { .type = MESSAGE_ACK, .ack = counters->received };
    counters->unacknowledged = 0;
    counters->confirmed = counters->posted;
    loop->exchange.ack = 0;
    return out_message(loop, &message);
}

bool serve_answer(struct serve_loop *loop)
{
    uint8_t pending = loop->turn.pending;
    loop->turn.pending = 0;
    return pending == MESSAGE_REQUEST ? answer_request(loop) : acknowledge_batch(loop);
}
