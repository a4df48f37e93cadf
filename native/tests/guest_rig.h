/*
 * A guest's accesses, one at a time, with no KVM: the routes, leases and link of a machine whose one
 * device has the ports 300h to 307h, on a server that the test plays.
 */
#ifndef KVMSHIM_TEST_GUEST_RIG_H
#define KVMSHIM_TEST_GUEST_RIG_H

#include "vcpu/access.h"
#include "fake_server.h"

enum { BASE = 0x300, PORTS = 8, DEVICE = 9 };

struct rig {
    struct bench *bench;
    struct leases *leases;
    struct routes *routes;
    struct vcpu vcpu;
};

static inline void route(struct rig *rig, uint16_t port, uint16_t ports, bool posted)
{
    struct route_entry entry = { .kind = ROUTE_REMOTE, .posted = posted, .region = 1,
                                 .device_id = DEVICE, .lane_0 = BASE,
                                 .leases = leases_of(rig->leases, DEVICE) };
    int index = routes_entry(rig->routes, &entry);
    CHECK(index > 0);
    for (uint16_t i = 0; i < ports; i++)
        rig->routes->port[port + i] = (uint16_t)index;
}

/* All eight ports may be leased; writes wait at the first and are posted at the others. */
static inline struct rig *set_up_guest_with(struct link_setup setup)
{
    struct rig *rig = calloc(1, sizeof *rig);
    rig->leases = setup.leases = leases_new();
    CHECK_EQUAL(leases_add(rig->leases, DEVICE, 0, BASE, PORTS), 0);
    rig->bench = set_up_with(setup);
    rig->routes = routes_new();
    rig->routes->links[0] = rig->bench->link;
    route(rig, BASE, 1, false);
    route(rig, BASE + 1, PORTS - 1, true);
    rig->vcpu.control = rig->bench->control;
    rig->vcpu.routes = rig->routes;
    start_event_thread(rig->bench);
    return rig;
}

static inline struct rig *set_up_guest(void)
{
    struct link_setup setup = usual_setup();
    setup.flush_after_ns = 1000000000; /* a batch leaves when the test wants it to */
    return set_up_guest_with(setup);
}

static inline void tear_down_guest(struct rig *rig)
{
    tear_down(rig->bench);
    routes_free(rig->routes);
    leases_free(rig->leases);
    free(rig);
}

/* -- what the guest does -- */

static inline int out(struct rig *rig, uint16_t lane, uint8_t value)
{
    struct vcpu_access access = { .direction = 1, .size = 1, .elements = 1,
                                  .address = BASE + lane, .data = &value };
    return access_serve(&rig->vcpu, &access);
}

/* An IN that is expected to come from a lease. */
static inline uint8_t leased_in(struct rig *rig, uint16_t lane)
{
    uint8_t value = 0;
    uint64_t before = rig->vcpu.leased;
    struct vcpu_access access = { .size = 1, .elements = 1, .address = BASE + lane,
                                  .data = &value };
    CHECK_EQUAL(access_serve(&rig->vcpu, &access), VCPU_CONTINUE);
    CHECK_EQUAL(rig->vcpu.leased, before + 1);
    return value;
}

struct asking {
    struct rig *rig;
    struct vcpu_access access;
    uint8_t data[8];
    int result;
    pthread_t thread;
};

static inline void *asking_thread(void *argument)
{
    struct asking *asking = argument;
    asking->result = access_serve(&asking->rig->vcpu, &asking->access);
    return NULL;
}

/* An access that is expected to wait for the server's answer, in a thread of its own. */
static inline void begin_access(struct asking *asking, struct rig *rig, uint8_t direction,
                                uint16_t lane, uint8_t size)
{
    asking->rig = rig;
    asking->access = (struct vcpu_access){ .direction = direction, .size = size, .elements = 1,
                                           .address = BASE + lane, .data = asking->data };
    CHECK_EQUAL(pthread_create(&asking->thread, NULL, asking_thread, asking), 0);
}

static inline void end_access(struct asking *asking)
{
    CHECK_EQUAL(pthread_join(asking->thread, NULL), 0);
    CHECK_EQUAL(asking->result, VCPU_CONTINUE);
}

/* An IN of a byte that the server is asked for, and answers with what the test says. */
static inline void asked_in(struct rig *rig, uint16_t lane, uint8_t answer)
{
    struct asking asking = { 0 };
    begin_access(&asking, rig, 0, lane, 1);
    struct message request = hear_type(rig->bench, MESSAGE_REQUEST);
    tell(rig->bench, feedback_of(request.seq, &answer, 1));
    end_access(&asking);
    CHECK_EQUAL(asking.data[0], answer);
}

/* -- what the server says -- */

static inline struct message lease_of(uint16_t lane, uint32_t rule, uint64_t value)
{
    return (struct message){ .type = MESSAGE_LEASE, .device_id = DEVICE, .address = BASE + lane,
                             .rule = LEASE_GRANTED | rule, .value = value };
}

/* Tells it and waits until the client has acted on it. */
static inline void tell_through(struct rig *rig, struct message message)
{
    tell(rig->bench, message);
    tell(rig->bench, (struct message){ .type = MESSAGE_PING, .token = 1 });
    hear_type(rig->bench, MESSAGE_PONG);
}

static inline void acknowledge(struct rig *rig)
{
    tell_through(rig, (struct message){ .type = MESSAGE_ACK });
}

/* The next posted access; batch holds the message that it is in. */
static inline struct posted_write posted(struct message *batch, uint32_t at)
{
    struct posted_write access;
    CHECK(at < batch->length);
    CHECK_EQUAL(codec_decode_write(batch->data + at * CODEC_WRITE_BYTES, &access), 0);
    return access;
}

static inline struct message flushed(struct rig *rig)
{
    link_flush(rig->bench->link);
    return hear_type(rig->bench, MESSAGE_BATCH);
}

#endif
