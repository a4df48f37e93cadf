/* Fixed-width messages (native/src/codec.h). */

#define CODEC_MAX_FRAME ...
#define CODEC_MAX_DATA ...
#define CODEC_MAX_FEED ...
#define CODEC_MAX_EMIT ...
#define CODEC_MAX_WRITES ...
#define CODEC_MAX_TEXT ...
#define CODEC_WRITE_BYTES ...
#define CODEC_MAX_TERMS ...
#define CODEC_MAX_STATE ...
#define CODEC_TERM_BYTES ...
#define LEASE_GRANTED ...
#define LEASE_PAIR ...
#define LEASE_HIGH_NEXT ...
#define LEASE_HOLD ...
#define CODEC_TRUNCATED ...
#define CODEC_MALFORMED ...
#define CODEC_UNKNOWN ...
#define CODEC_TOO_LONG ...

struct message {
    uint8_t type;
    uint64_t seq;
    uint64_t ack;
    uint32_t server_id;
    uint32_t vm_id;
    uint8_t hypervisor;
    uint32_t client_id;
    uint32_t device_id;
    uint8_t direction;
    uint8_t space;
    uint64_t address;
    uint8_t size;
    uint32_t elements;
    uint64_t time_ns;
    uint64_t request;
    uint8_t status;
    uint32_t line;
    uint8_t level;
    uint64_t number;
    uint8_t channel;
    uint8_t end;
    uint64_t total;
    uint8_t kind;
    uint64_t value;
    uint8_t running;
    uint8_t keep, remove;
    uint64_t token;
    uint32_t rule;
    uint64_t until_ns, unaffected, steady;
    const uint8_t *data;
    uint32_t length;
    ...;
};

struct posted_write {
    uint32_t device_id;
    uint8_t direction;
    uint8_t space;
    uint64_t address;
    uint8_t size;
    uint64_t time_ns;
    uint64_t value;
    ...;
};

long codec_size(const struct message *message);
long codec_encode(const struct message *message, uint8_t *out);
long codec_decode(const uint8_t *in, size_t length, struct message *message);
void codec_encode_write(const struct posted_write *write, uint8_t *out);
int codec_decode_write(const uint8_t *in, struct posted_write *write);

struct lease_term {
    uint64_t num, den, origin, period, length, start, step, start2, step2, wrap;
    uint8_t shift;
    uint64_t mask;
    ...;
};

void codec_encode_term(const struct lease_term *term, uint8_t *out);
int codec_decode_term(const uint8_t *in, struct lease_term *term);
