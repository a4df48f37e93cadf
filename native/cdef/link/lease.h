/* Leases (native/src/link/lease.h). */

struct lease_grant {
    uint32_t rule, term_count;
    uint64_t granted_at_seq;
    uint64_t value, until_ns, unaffected, steady;
    struct lease_term terms[4];
    ...;
};
bool lease_value(const struct lease_grant *grant, uint64_t now_ns, uint64_t *value);

struct leases { ...; };
struct lease_device { ...; };
struct leases *leases_new(void);
void leases_free(struct leases *leases);
int leases_add(struct leases *leases, uint32_t device_id, uint8_t space, uint64_t address,
               uint64_t length);
struct lease_device *leases_of(struct leases *leases, uint32_t device_id);
