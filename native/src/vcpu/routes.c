#include "vcpu/routes.h"

#include <stdbool.h>
#include <stdlib.h>

struct routes *routes_new(void)
{
    struct routes *routes = calloc(1, sizeof *routes);
    if (routes)
        routes->entry_count = 1;
    return routes;
}

void routes_free(struct routes *routes)
{
    free(routes);
}

static bool same_region(const struct route_entry *a, const struct route_entry *b)
{
    return a->kind == b->kind && a->link == b->link && a->region == b->region &&
           a->device_id == b->device_id;
}

int routes_entry(struct routes *routes, const struct route_entry *entry)
{
    for (uint32_t i = 1; i < routes->entry_count; i++) {
        const struct route_entry *old = &routes->entries[i];
        if (same_region(old, entry) && old->posted == entry->posted)
            return (int)i;
    }
    if (routes->entry_count == ROUTE_ENTRIES)
        return -1;
    routes->entries[routes->entry_count] = *entry;
    return (int)routes->entry_count++;
}

int routes_add_range(struct routes *routes, uint64_t base, uint64_t size, uint16_t entry)
{
    if (routes->range_count == ROUTE_RANGES)
        return -1;
    routes->ranges[routes->range_count++] = (struct route_range){ base, size, entry };
    return 0;
}

uint16_t routes_at(const struct routes *routes, uint8_t space, uint64_t address)
{
    if (space == 0)
        return address < ROUTE_PORTS ? routes->port[address] : 0;
    if (space == 2)
        return address < ROUTE_BUS ? routes->bus[address] : 0;
    for (uint32_t i = routes->range_count; i-- > 0;) {
        const struct route_range *range = &routes->ranges[i];
        if (address - range->base < range->size)
            return range->entry;
    }
    return 0;
}

int routes_of(const struct routes *routes, const struct vcpu_access *access)
{
    uint16_t entry = routes_at(routes, access->space, access->address);
    for (uint8_t i = 1; i < access->size; i++) {
        uint16_t other = routes_at(routes, access->space, access->address + i);
        if (other == entry)
            continue;
        if (!same_region(&routes->entries[other], &routes->entries[entry]))
            return -1;
        if (!routes->entries[other].posted)
            entry = other;
    }
    bool whole = access->size == 1 || access->size == 2 || access->size == 4 ||
                 access->size == 8;
    return whole || entry == 0 ? entry : -1;
}
