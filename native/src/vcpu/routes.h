/* Where a guest's accesses go: ports and memory ranges to devices. */
#ifndef KVMSHIM_ROUTES_H
#define KVMSHIM_ROUTES_H

#include <stdint.h>

#include "link/link.h"

enum { ROUTE_NONE, ROUTE_LOCAL, ROUTE_REMOTE };

enum {
    ROUTE_PORTS = 65536,
    ROUTE_ENTRIES = 4096,
    ROUTE_RANGES = 1024,
    ROUTE_LINKS = 64,
    ROUTE_BUS = 32, /* addresses of the space that interrupt controllers are reached in (irqchip.h) */
};

/* An access of the guest: size * elements bytes, to or from data. */
struct vcpu_access {
    uint8_t space, direction, size;
    uint32_t elements;
    uint64_t address, time_ns;
    uint8_t *data;
};

struct route_entry {
    uint8_t kind;
    uint8_t posted; /* writes may be posted */
    uint16_t link;
    uint16_t region; /* which of the machine's; an access lies in one or is taken apart */
    uint32_t device_id;
    uint64_t lane_0; /* the address at which this region would have the device's lane 0 */
    struct lease_device *leases; /* NULL: none of the device's reads are leased */
};

struct route_range {
    uint64_t base, size;
    uint16_t entry;
};

struct routes {
    uint16_t port[ROUTE_PORTS]; /* index of an entry; entry 0 is ROUTE_NONE */
    uint16_t bus[ROUTE_BUS];
    struct route_entry entries[ROUTE_ENTRIES];
    uint32_t entry_count;
    struct route_range ranges[ROUTE_RANGES];
    uint32_t range_count;
    struct link *links[ROUTE_LINKS];
};

struct routes *routes_new(void);
void routes_free(struct routes *routes);
/* Makes an entry (or finds the same one); its index, or -1 when there is no room. */
int routes_entry(struct routes *routes, const struct route_entry *entry);
/* Memory; of two ranges that overlap the later one goes first. */
int routes_add_range(struct routes *routes, uint64_t base, uint64_t size, uint16_t entry);

uint16_t routes_at(const struct routes *routes, uint8_t space, uint64_t address);
/*
 * The entry that serves the whole access, the most careful one where they differ; -1 if its bytes
 * are of different regions.
 */
int routes_of(const struct routes *routes, const struct vcpu_access *access);

#endif
