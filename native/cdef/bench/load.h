/* A load for a server (native/src/bench/load.h). */

#define LOAD_MAX_ACCESSES ...
#define LOAD_MAX_BATCH ...

struct load_access {
    uint32_t device_id;
    uint8_t direction, space, size;
    uint64_t address, value;
};

struct load_client {
    int fd;
    uint32_t server_id, vm_id, client_id, window;
    uint8_t hypervisor;
    uint64_t sent, received;
    int64_t clock_start_ns;
};

struct load_plan {
    const struct load_access *accesses;
    uint32_t access_count;
    uint32_t batch;
    uint32_t spin;
    int64_t duration_ns;
};

struct load_result {
    uint64_t done;
    uint64_t total;
    int64_t elapsed_ns;
    uint64_t sends, receives;
    uint64_t interrupts, emitted;
};

int load_run(struct load_client *clients, size_t count, const struct load_plan *plan,
             struct load_result *result);
