/* The loop that runs a virtual CPU, and where its accesses go (native/src/vcpu.h). */

#define ROUTE_NONE ...
#define ROUTE_LOCAL ...
#define ROUTE_REMOTE ...
#define ROUTE_LINKS ...

struct route_entry {
    uint8_t kind;
    uint8_t posted;
    uint16_t link;
    uint32_t device_id;
    ...;
};

struct routes {
    uint16_t port[65536];
    struct link *links[64];
    ...;
};

struct routes *routes_new(void);
void routes_free(struct routes *routes);
int routes_entry(struct routes *routes, struct route_entry entry);
int routes_add_range(struct routes *routes, uint64_t base, uint64_t size, uint16_t entry);

enum vcpu_exit {
    VCPU_STOPPED,
    VCPU_EVENT,
    VCPU_LINK_LOST,
    VCPU_LOCAL,
    VCPU_SHUTDOWN,
    VCPU_HALTED,
    VCPU_ENTRY_FAILED,
    VCPU_INTERNAL,
    VCPU_UNKNOWN_EXIT,
    VCPU_FAILED,
    VCPU_REFUSED,
};

struct vcpu_access {
    uint8_t space, direction, size;
    uint32_t elements;
    uint64_t address, time_ns;
    uint8_t *data;
    ...;
};

struct vcpu_mark {
    uint64_t time_ns;
    uint16_t port;
    ...;
};

struct vcpu {
    int fd;
    struct kvm_run *run;
    struct control *control;
    struct routes *routes;
    uint64_t detail;
    struct vcpu_access access;
    uint64_t exits, port_exits, memory_exits, unclaimed;
    struct vcpu_mark *marks;
    size_t mark_count, mark_room;
    ...;
};

int vcpu_run(struct vcpu *vcpu);
int vcpu_complete(struct vcpu *vcpu);
