#include "codec.h"

#include <string.h>

enum kind { U8, U32, U64, BIN, STR, RECORDS };

static const uint8_t tag_of[] = {
    [U8] = 0xcc, [U32] = 0xce, [U64] = 0xcf, [BIN] = 0xc6, [STR] = 0xdb, [RECORDS] = 0xdd,
};
static const uint8_t width_of[] = {
    [U8] = 1, [U32] = 4, [U64] = 8, [BIN] = 4, [STR] = 4, [RECORDS] = 4,
};

struct field {
    uint8_t kind;
    uint8_t offset; /* in the struct that the layout is of */
};

#define MAX_FIELDS 14

struct layout {
    uint8_t count;
    uint32_t limit; /* of the tail, in bytes or writes */
    struct field fields[MAX_FIELDS];
};

#define F(kind, member) { kind, offsetof(struct message, member) }
#define W(kind, member) { kind, offsetof(struct posted_write, member) }
#define T(kind, member) { kind, offsetof(struct lease_term, member) }
#define FROM_CLIENT                                                                     \
    F(U64, seq), F(U64, ack), F(U32, server_id), F(U32, vm_id), F(U8, hypervisor),      \
        F(U32, client_id)
#define FROM_SERVER F(U64, seq), F(U64, ack), F(U32, vm_id), F(U8, hypervisor), F(U32, client_id)

static const struct layout layouts[] = {
    [MESSAGE_PING] = { 1, 0, { F(U64, token) } },
    [MESSAGE_PONG] = { 2, 0, { F(U64, token), F(U64, ack) } },
    [MESSAGE_ACK] = { 1, 0, { F(U64, ack) } },
    [MESSAGE_REQUEST] = { 14, CODEC_MAX_DATA,
                          { FROM_CLIENT, F(U32, device_id), F(U8, direction), F(U8, space),
                            F(U64, address), F(U8, size), F(U32, elements), F(U64, time_ns),
                            F(BIN, length) } },
    [MESSAGE_BATCH] = { 7, CODEC_MAX_WRITES, { FROM_CLIENT, F(RECORDS, length) } },
    [MESSAGE_FEED] = { 11, CODEC_MAX_FEED,
                       { FROM_CLIENT, F(U32, device_id), F(U8, channel), F(U8, end),
                         F(U64, time_ns), F(BIN, length) } },
    [MESSAGE_CLOCK] = { 8, 0, { FROM_CLIENT, F(U8, running), F(U64, time_ns) } },
    [MESSAGE_DETACH] = { 8, 0, { FROM_CLIENT, F(U8, keep), F(U64, time_ns) } },
    [MESSAGE_SAVE] = { 9, 0,
                       { FROM_CLIENT, F(U32, device_id), F(U8, remove), F(U64, time_ns) } },
    [MESSAGE_ADD] = { 8, CODEC_MAX_STATE, { FROM_CLIENT, F(U64, time_ns), F(BIN, length) } },
    [MESSAGE_FEEDBACK] = { 8, CODEC_MAX_DATA,
                           { FROM_SERVER, F(U64, request), F(U8, status), F(BIN, length) } },
    [MESSAGE_FINISH] = { 7, 0, { FROM_SERVER, F(U64, request), F(U8, status) } },
    [MESSAGE_INTERRUPT] = { 8, 0, { FROM_SERVER, F(U32, line), F(U8, level), F(U64, number) } },
    [MESSAGE_EMIT] = { 8, CODEC_MAX_EMIT,
                       { FROM_SERVER, F(U32, device_id), F(U8, channel), F(BIN, length) } },
    [MESSAGE_CONSUMED] = { 8, 0,
                           { FROM_SERVER, F(U32, device_id), F(U8, channel), F(U64, total) } },
    [MESSAGE_EVENT] = { 9, CODEC_MAX_TEXT,
                        { FROM_SERVER, F(U32, device_id), F(U8, kind), F(U64, value),
                          F(STR, length) } },
    [MESSAGE_LEASE] = { 14, CODEC_MAX_TERMS,
                        { FROM_SERVER, F(U32, device_id), F(U8, space), F(U64, address),
                          F(U32, rule), F(U64, value), F(U64, until_ns), F(U64, unaffected),
                          F(U64, steady), F(RECORDS, length) } },
    [MESSAGE_STATE] = { 8, CODEC_MAX_STATE,
                        { FROM_SERVER, F(U64, request), F(U8, status), F(BIN, length) } },
    [MESSAGE_ADDED] = { 8, CODEC_MAX_STATE,
                        { FROM_SERVER, F(U64, request), F(U8, status), F(BIN, length) } },
};

static const struct layout write_layout = {
    7, 0,
    { W(U32, device_id), W(U8, direction), W(U8, space), W(U64, address), W(U8, size),
      W(U64, time_ns), W(U64, value) },
};

static const struct layout term_layout = {
    12, 0,
    { T(U64, num), T(U64, den), T(U64, origin), T(U64, period), T(U64, length), T(U64, start),
      T(U64, step), T(U64, start2), T(U64, step2), T(U64, wrap), T(U8, shift), T(U64, mask) },
};

static const struct layout *find_layout(uint8_t type)
{
    if (type >= sizeof layouts / sizeof layouts[0] || layouts[type].count == 0)
        return NULL;
    return &layouts[type];
}

static size_t header_size(const struct layout *layout)
{
    size_t size = 0;
    for (int i = 0; i < layout->count; i++)
        size += 1 + width_of[layout->fields[i].kind];
    return size;
}

static uint8_t *put_fields(const struct layout *layout, const void *from, uint8_t *out)
{
    for (int i = 0; i < layout->count; i++) {
        const uint8_t *member = (const uint8_t *)from + layout->fields[i].offset;
        uint8_t kind = layout->fields[i].kind;
        *out = tag_of[kind];
        switch (width_of[kind]) {
        case 1:
            out[1] = *member;
            break;
        case 4: {
            uint32_t value;
            memcpy(&value, member, 4);
            value = __builtin_bswap32(value);
            memcpy(out + 1, &value, 4);
            break;
        }
        default: {
            uint64_t value;
            memcpy(&value, member, 8);
            value = __builtin_bswap64(value);
            memcpy(out + 1, &value, 8);
        }
        }
        out += 1 + width_of[kind];
    }
    return out;
}

/* Reads the fields at in, which has room for all of them; NULL where a tag is not the field's. */
static const uint8_t *get_fields(const struct layout *layout, const uint8_t *in, void *to)
{
    for (int i = 0; i < layout->count; i++) {
        uint8_t *member = (uint8_t *)to + layout->fields[i].offset;
        uint8_t kind = layout->fields[i].kind;
        if (*in != tag_of[kind])
            return NULL;
        switch (width_of[kind]) {
        case 1:
            *member = in[1];
            break;
        case 4: {
            uint32_t value;
            memcpy(&value, in + 1, 4);
            value = __builtin_bswap32(value);
            memcpy(member, &value, 4);
            break;
        }
        default: {
            uint64_t value;
            memcpy(&value, in + 1, 8);
            value = __builtin_bswap64(value);
            memcpy(member, &value, 8);
        }
        }
        in += 1 + width_of[kind];
    }
    return in;
}

static size_t tail_bytes(uint8_t type, uint32_t length)
{
    size_t each = type == MESSAGE_BATCH ? CODEC_WRITE_BYTES
                  : type == MESSAGE_LEASE ? CODEC_TERM_BYTES : 1;
    return length * each;
}

static int has_tail(const struct layout *layout)
{
    return layout->limit != 0;
}

long codec_size(const struct message *message)
{
    const struct layout *layout = find_layout(message->type);
    if (!layout)
        return CODEC_UNKNOWN;
    size_t size = 2 + header_size(layout);
    if (has_tail(layout)) {
        if (message->length > layout->limit)
            return CODEC_TOO_LONG;
        size += tail_bytes(message->type, message->length);
    }
    return (long)size;
}

long codec_encode(const struct message *message, uint8_t *out)
{
    const struct layout *layout = find_layout(message->type);
    if (!layout)
        return CODEC_UNKNOWN;
    if (has_tail(layout) && message->length > layout->limit)
        return CODEC_TOO_LONG;
    uint8_t *start = out;
    *out++ = (uint8_t)(0x90 | (layout->count + 1));
    *out++ = message->type;
    out = put_fields(layout, message, out);
    if (has_tail(layout) && message->length) {
        size_t bytes = tail_bytes(message->type, message->length);
        memcpy(out, message->data, bytes);
        out += bytes;
    }
    return out - start;
}

/* Whether every record of a tail has its tags. */
static int records_are_whole(uint8_t type, const uint8_t *in, uint32_t count)
{
    struct posted_write write;
    struct lease_term term;
    for (uint32_t i = 0; i < count; i++) {
        if (type == MESSAGE_BATCH && codec_decode_write(in, &write) < 0)
            return 0;
        if (type == MESSAGE_LEASE && codec_decode_term(in, &term) < 0)
            return 0;
        in += tail_bytes(type, 1);
    }
    return 1;
}

long codec_decode(const uint8_t *in, size_t length, struct message *message)
{
    if (length < 2)
        return CODEC_TRUNCATED;
    const struct layout *layout = find_layout(in[1]);
    if (!layout)
        return CODEC_UNKNOWN;
    if (in[0] != (0x90 | (layout->count + 1)))
        return CODEC_MALFORMED;
    size_t size = 2 + header_size(layout);
    if (length < size)
        return CODEC_TRUNCATED;
    memset(message, 0, sizeof *message);
    message->type = in[1];
    if (!get_fields(layout, in + 2, message))
        return CODEC_MALFORMED;
    if (!has_tail(layout))
        return (long)size;
    if (message->length > layout->limit)
        return CODEC_TOO_LONG;
    size_t tail = tail_bytes(message->type, message->length);
    if (length - size < tail)
        return CODEC_TRUNCATED;
    message->data = in + size;
    if (layout->fields[layout->count - 1].kind == RECORDS &&
        !records_are_whole(message->type, message->data, message->length))
        return CODEC_MALFORMED;
    return (long)(size + tail);
}

static void encode_record(const struct layout *layout, const void *record, uint8_t *out)
{
    *out++ = (uint8_t)(0x90 | layout->count);
    put_fields(layout, record, out);
}

static int decode_record(const struct layout *layout, const uint8_t *in, void *record)
{
    if (*in != (0x90 | layout->count))
        return CODEC_MALFORMED;
    return get_fields(layout, in + 1, record) ? 0 : CODEC_MALFORMED;
}

void codec_encode_write(const struct posted_write *write, uint8_t *out)
{
    encode_record(&write_layout, write, out);
}

int codec_decode_write(const uint8_t *in, struct posted_write *write)
{
    return decode_record(&write_layout, in, write);
}

void codec_encode_term(const struct lease_term *term, uint8_t *out)
{
    encode_record(&term_layout, term, out);
}

int codec_decode_term(const uint8_t *in, struct lease_term *term)
{
    return decode_record(&term_layout, in, term);
}
