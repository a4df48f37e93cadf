/* Where a guest's accesses go (native/src/vcpu/routes.h). */

#define ROUTE_NONE ...
#define ROUTE_LOCAL ...
#define ROUTE_REMOTE ...
#define ROUTE_LINKS ...

struct route_entry {
    uint8_t kind;
    uint8_t posted;
    uint16_t link;
    uint16_t region;
    uint32_t device_id;
    uint64_t lane_0;
    struct lease_device *leases;
    ...;
};

struct routes {
    uint16_t port[65536];
    uint16_t bus[32];
    struct link *links[64];
    ...;
};

struct routes *routes_new(void);
void routes_free(struct routes *routes);
int routes_entry(struct routes *routes, const struct route_entry *entry);
int routes_add_range(struct routes *routes, uint64_t base, uint64_t size, uint16_t entry);

struct vcpu_access {
    uint8_t space, direction, size;
    uint32_t elements;
    uint64_t address, time_ns;
    uint8_t *data;
    ...;
};
