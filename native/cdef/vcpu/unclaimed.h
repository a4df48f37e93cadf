/* The accesses that nobody claims (native/src/vcpu/unclaimed.h). */

#define UNCLAIMED_PLACES ...
#define UNCLAIMED_POST_CODES ...

struct unclaimed_access {
    uint64_t time_ns;
    uint64_t address, value;
    uint8_t direction, size;
    ...;
};

struct unclaimed_place {
    uint8_t space;
    bool has_code;
    uint64_t low, high;
    uint64_t reads, writes, weight;
    uint64_t code;
    struct unclaimed_access first, last;
    ...;
};

struct unclaimed {
    uint32_t count;
    uint64_t forgotten;
    struct unclaimed_place places[256];
    uint64_t post_count;
    uint8_t post_codes[16];
    ...;
};
