/* The codec over buffers of exactly the size that it may touch: a sanitizer sees every step beyond. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "codec.h"

static const uint8_t types[] = {
    MESSAGE_PING,   MESSAGE_PONG,  MESSAGE_ACK,      MESSAGE_REQUEST,   MESSAGE_BATCH,
    MESSAGE_FEED,   MESSAGE_CLOCK, MESSAGE_DETACH,   MESSAGE_SAVE,      MESSAGE_ADD,
    MESSAGE_FEEDBACK, MESSAGE_FINISH, MESSAGE_EMIT,  MESSAGE_CONSUMED,  MESSAGE_EVENT,
    MESSAGE_INTERRUPT, MESSAGE_LEASE, MESSAGE_STATE, MESSAGE_ADDED,
};
enum { TYPES = sizeof types / sizeof types[0] };

static uint32_t limit_of(uint8_t type)
{
    switch (type) {
    case MESSAGE_REQUEST:
    case MESSAGE_FEEDBACK:
        return CODEC_MAX_DATA;
    case MESSAGE_BATCH:
        return CODEC_MAX_WRITES;
    case MESSAGE_FEED:
        return CODEC_MAX_FEED;
    case MESSAGE_EMIT:
        return CODEC_MAX_EMIT;
    case MESSAGE_EVENT:
        return CODEC_MAX_TEXT;
    case MESSAGE_LEASE:
        return CODEC_MAX_TERMS;
    case MESSAGE_ADD:
    case MESSAGE_STATE:
    case MESSAGE_ADDED:
        return CODEC_MAX_STATE;
    default:
        return 0;
    }
}

static uint64_t state = 88172645463325252u;

/* xorshift64: the same numbers in every run. */
static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static struct message some_message(uint8_t type)
{
    struct message message = {
        .type = type, .seq = draw(), .ack = draw(), .server_id = (uint32_t)draw(),
        .vm_id = (uint32_t)draw(), .hypervisor = (uint8_t)draw(), .client_id = (uint32_t)draw(),
        .device_id = (uint32_t)draw(), .address = draw(), .time_ns = draw(), .token = draw(),
        .line = (uint32_t)draw(), .number = draw(), .total = draw(), .value = draw(),
    };
    return message;
}

static size_t tail_size(const struct message *message)
{
    size_t each = message->type == MESSAGE_BATCH   ? CODEC_WRITE_BYTES
                  : message->type == MESSAGE_LEASE ? CODEC_TERM_BYTES : 1;
    return message->length * each;
}

/* The tail of a message: bytes or records. On the heap, of exactly its size. */
static uint8_t *some_tail(const struct message *message)
{
    size_t size = tail_size(message);
    uint8_t *tail = malloc(size ? size : 1);
    memset(tail, 0x5a, size);
    for (uint32_t i = 0; message->type == MESSAGE_BATCH && i < message->length; i++) {
        struct posted_write write = { .device_id = i, .address = draw(), .value = draw() };
        codec_encode_write(&write, tail + (size_t)i * CODEC_WRITE_BYTES);
    }
    for (uint32_t i = 0; message->type == MESSAGE_LEASE && i < message->length; i++) {
        struct lease_term term = { .num = draw(), .den = draw(), .shift = 8, .mask = draw() };
        codec_encode_term(&term, tail + (size_t)i * CODEC_TERM_BYTES);
    }
    return tail;
}

static uint8_t *encoded(const struct message *message, long *size)
{
    *size = codec_size(message);
    CHECK(*size > 0);
    uint8_t *out = malloc((size_t)*size);
    CHECK_EQUAL(codec_encode(message, out), *size);
    return out;
}

/* Decodes a copy that ends where the heap's red zone begins. */
static long decode_exactly(const uint8_t *in, size_t length, struct message *message)
{
    uint8_t *copy = malloc(length ? length : 1);
    memcpy(copy, in, length);
    long size = codec_decode(copy, length, message);
    CHECK(size <= (long)length);
    if (size > 0 && message->data) {
        CHECK(message->data + tail_size(message) == copy + size);
    }
    free(copy);
    return size;
}

static void every_message_comes_back(void)
{
    for (int i = 0; i < TYPES; i++) {
        uint32_t lengths[] = { 0, 1, limit_of(types[i]) };
        for (int j = 0; j < 3; j++) {
            struct message message = some_message(types[i]), back;
            message.length = lengths[j] <= limit_of(types[i]) ? lengths[j] : 0;
            uint8_t *tail = some_tail(&message);
            message.data = tail;
            long size;
            uint8_t *bytes = encoded(&message, &size);
            CHECK_EQUAL(codec_decode(bytes, (size_t)size, &back), size);
            CHECK_EQUAL(back.type, message.type);
            CHECK_EQUAL(back.length, message.length);
            long again_size;
            uint8_t *again = encoded(&back, &again_size);
            CHECK_EQUAL(again_size, size);
            CHECK(memcmp(again, bytes, (size_t)size) == 0);
            free(again);
            free(bytes);
            free(tail);
        }
    }
}

static void a_message_cut_anywhere_is_truncated(void)
{
    for (int i = 0; i < TYPES; i++) {
        struct message message = some_message(types[i]), back;
        message.length = limit_of(types[i]) ? 3 : 0;
        uint8_t *tail = some_tail(&message);
        message.data = tail;
        long size;
        uint8_t *bytes = encoded(&message, &size);
        for (long kept = 0; kept < size; kept++)
            CHECK_EQUAL(decode_exactly(bytes, (size_t)kept, &back), CODEC_TRUNCATED);
        free(bytes);
        free(tail);
    }
}

static void a_tail_above_its_limit_is_refused_before_it_is_looked_at(void)
{
    for (int i = 0; i < TYPES; i++) {
        if (!limit_of(types[i]))
            continue;
        struct message message = some_message(types[i]), back;
        long size;
        uint8_t *bytes = encoded(&message, &size); /* with no tail: its length stands last */
        uint32_t lengths[] = { limit_of(types[i]) + 1, UINT32_MAX };
        for (int j = 0; j < 2; j++) {
            uint32_t length = __builtin_bswap32(lengths[j]);
            memcpy(bytes + size - 4, &length, 4);
            CHECK_EQUAL(decode_exactly(bytes, (size_t)size, &back), CODEC_TOO_LONG);
            message.length = lengths[j];
            CHECK_EQUAL(codec_size(&message), CODEC_TOO_LONG);
        }
        free(bytes);
    }
}

static void any_bytes_are_taken_or_refused(void)
{
    uint8_t bytes[200];
    struct message message;
    for (int turn = 0; turn < 100000; turn++) {
        size_t length = draw() % sizeof bytes;
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)draw();
        if (length > 1 && turn % 2) {
            bytes[1] = types[draw() % TYPES];
            bytes[0] = (uint8_t)(0x90 | draw() % 16);
        }
        decode_exactly(bytes, length, &message);
    }
}

static void damaged_messages_are_taken_or_refused(void)
{
    for (int turn = 0; turn < 100000; turn++) {
        struct message message = some_message(types[draw() % TYPES]), back;
        uint32_t limit = limit_of(message.type);
        message.length = limit ? (uint32_t)(draw() % 5) : 0;
        uint8_t *tail = some_tail(&message);
        message.data = tail;
        long size;
        uint8_t *bytes = encoded(&message, &size);
        for (uint64_t flips = draw() % 4; flips; flips--)
            bytes[draw() % (uint64_t)size] ^= (uint8_t)(1u << draw() % 8);
        decode_exactly(bytes, (size_t)(draw() % (uint64_t)(size + 1)), &back);
        free(bytes);
        free(tail);
    }
}

static void types_that_are_not_ours_are_unknown(void)
{
    for (int type = 0; type < 256; type++) {
        struct message message = { .type = (uint8_t)type }, back;
        uint8_t bytes[] = { 0x92, (uint8_t)type };
        int known = memchr(types, type, TYPES) != NULL;
        CHECK(known || codec_size(&message) == CODEC_UNKNOWN);
        CHECK(known || codec_decode(bytes, 2, &back) == CODEC_UNKNOWN);
    }
}

int main(void)
{
    static const struct test tests[] = {
        TEST(every_message_comes_back),
        TEST(a_message_cut_anywhere_is_truncated),
        TEST(a_tail_above_its_limit_is_refused_before_it_is_looked_at),
        TEST(any_bytes_are_taken_or_refused),
        TEST(damaged_messages_are_taken_or_refused),
        TEST(types_that_are_not_ours_are_unknown),
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
