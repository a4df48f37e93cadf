/* What the Unicorn engine calls, with a test in the engine's place: flags and 64 bytes of memory. */
#include <string.h>

#include "vcpu/access.h"
#include "check.h"
#include "unicorn/emulated.h"
#include "unicorn/engine.h"

enum { PORT = 0x500, INTERRUPTS_ON = 1 << 9 };

static struct {
    uint64_t flags;
    uint8_t memory[64];
    int stops;
} engine;

int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    (void)fd, (void)request;
    return 0;
}

int engine_stop(void *context)
{
    (void)context;
    engine.stops++;
    return 0;
}

int engine_read_register(void *context, int number, uint64_t *value)
{
    (void)context, (void)number;
    *value = engine.flags;
    return 0;
}

int engine_read_memory(void *context, uint64_t address, void *bytes, uint64_t size)
{
    (void)context;
    if (address + size > sizeof engine.memory)
        return 6;
    memcpy(bytes, engine.memory + address, size);
    return 0;
}

int engine_write_memory(void *context, uint64_t address, const void *bytes, uint64_t size)
{
    (void)context;
    memcpy(engine.memory + address, bytes, size);
    return 0;
}

/* -- a machine with one device, in this process -------------------------------------------------- */

struct rig {
    struct vcpu vcpu;
    struct emulated emulated;
    uint8_t written[16];
    size_t count;
    int answer; /* of serve_local */
};

static int serve_local(void *context)
{
    struct rig *rig = context;
    const struct vcpu_access *access = &rig->vcpu.access;
    if (rig->answer < 0)
        return -1;
    for (uint32_t i = 0; i < access->size; i++) {
        if (access->direction)
            rig->written[rig->count++] = access->data[i];
        else
            access->data[i] = (uint8_t)(0x11 * (i + 1));
    }
    return 0;
}

static struct rig *set_up(void)
{
    struct rig *rig = calloc(1, sizeof *rig);
    CHECK(rig);
    memset(&engine, 0, sizeof engine);
    rig->vcpu.control = control_new(-1);
    rig->vcpu.routes = routes_new();
    rig->vcpu.run = emulated_run_page();
    rig->vcpu.last_link = ROUTE_LINKS;
    CHECK(rig->vcpu.control && rig->vcpu.routes && rig->vcpu.run);
    struct route_entry local = { .kind = ROUTE_LOCAL, .device_id = 1 };
    int entry = routes_entry(rig->vcpu.routes, &local);
    CHECK(entry > 0);
    for (int i = 0; i < 4; i++)
        rig->vcpu.routes->port[PORT + i] = (uint16_t)entry;
    lines_userspace_irqchip(&rig->vcpu.control->lines);
    rig->emulated.vcpu = &rig->vcpu;
    rig->emulated.serve_local = serve_local;
    rig->emulated.context = rig;
    emulated_prepare(&rig->emulated);
    return rig;
}

static void tear_down(struct rig *rig)
{
    control_free(rig->vcpu.control);
    routes_free(rig->vcpu.routes);
    emulated_free_run_page(rig->vcpu.run);
    free(rig);
}

/* The engine begins an instruction; whether it is stopped before it. */
static bool step(struct rig *rig, uint64_t address, uint32_t size)
{
    int before = engine.stops;
    emulated_step(NULL, address, size, &rig->emulated);
    CHECK_EQUAL(rig->emulated.stopped, engine.stops != before);
    return rig->emulated.stopped;
}

/* -- accesses ------------------------------------------------------------------------------------- */

static void an_access_is_served_while_the_engine_waits(void)
{
    struct rig *rig = set_up();
    CHECK_EQUAL(emulated_in(NULL, PORT, 4, &rig->emulated), 0x44332211);
    emulated_out(NULL, PORT, 2, 0xbbaa, &rig->emulated);
    CHECK_EQUAL(rig->count, 2);
    CHECK(memcmp(rig->written, "\xaa\xbb", 2) == 0);
    CHECK_EQUAL(rig->vcpu.port_exits, 2);
    CHECK(!step(rig, 0, 1));
    tear_down(rig);
}

static void what_nobody_claims_reads_all_ones_in_its_width(void)
{
    struct rig *rig = set_up();
    struct emulated_window window = { &rig->emulated, 0x100000 };
    CHECK_EQUAL(emulated_in(NULL, 0x700, 1, &rig->emulated), 0xff);
    CHECK_EQUAL(emulated_in(NULL, 0x700, 2, &rig->emulated), 0xffff);
    CHECK_EQUAL(emulated_read(NULL, 8, 4, &window), 0xffffffff);
    CHECK_EQUAL(rig->vcpu.unclaimed, 3);
    tear_down(rig);
}

static void an_access_over_the_edge_of_a_device_goes_byte_by_byte(void)
{
    struct rig *rig = set_up();
    CHECK_EQUAL(emulated_in(NULL, PORT + 3, 2, &rig->emulated), 0xff11);
    CHECK_EQUAL(rig->vcpu.piece, 0);
    tear_down(rig);
}

static void an_access_that_fails_ends_the_guest_before_its_next_instruction(void)
{
    struct rig *rig = set_up();
    rig->answer = -1;
    emulated_out(NULL, PORT, 1, 1, &rig->emulated);
    CHECK_EQUAL(rig->emulated.result, VCPU_STOPPED);
    emulated_out(NULL, PORT, 1, 2, &rig->emulated); /* the rest of a string instruction */
    CHECK_EQUAL(emulated_in(NULL, PORT, 1, &rig->emulated), 0xff);
    CHECK_EQUAL(rig->vcpu.exits, 1);
    CHECK(step(rig, 0, 1));
    tear_down(rig);
}

static void a_write_to_a_rom_is_undone_before_the_next_instruction(void)
{
    struct rig *rig = set_up();
    memcpy(engine.memory, "before", 6);
    for (int i = 0; i < 3; i++) { /* one instruction, the last of them to the same place again */
        emulated_write_rom(NULL, 12, (uint64_t)(i % 2) * 2, 2, 0, &rig->emulated);
        memcpy(engine.memory + i % 2 * 2, "\xee\xee", 2);
    }
    CHECK(!step(rig, 16, 1));
    CHECK(memcmp(engine.memory, "before", 6) == 0);
    CHECK_EQUAL(rig->vcpu.unclaimed, 3);
    tear_down(rig);
}

static void more_writes_to_a_rom_than_any_instruction_makes_overflow_nothing(void)
{
    struct rig *rig = set_up();
    for (int i = 0; i < EMULATED_UNDO_BYTES; i++)
        emulated_write_rom(NULL, 12, 0, 8, 0, &rig->emulated);
    CHECK_EQUAL(rig->emulated.undo_count, EMULATED_UNDO_BYTES);
    CHECK(!step(rig, 16, 1));
    tear_down(rig);
}

/* -- between instructions ------------------------------------------------------------------------- */

static void a_guest_that_is_wanted_is_stopped_before_its_next_instruction(void)
{
    struct rig *rig = set_up();
    CHECK(!step(rig, 0, 1));
    control_enter(rig->vcpu.control, rig->vcpu.run);
    control_raise(rig->vcpu.control, CONTROL_PAUSE);
    CHECK(step(rig, 1, 1));
    CHECK_EQUAL(rig->emulated.address, 0); /* which has not begun */
    CHECK_EQUAL(vcpu_wanted(&rig->vcpu), VCPU_PAUSED);
    control_leave(rig->vcpu.control);
    tear_down(rig);
}

/* Whether an interrupt is taken behind an instruction of these bytes, with interrupts on. */
static bool taken_behind(const char *code, uint32_t size)
{
    struct rig *rig = set_up();
    engine.flags = INTERRUPTS_ON;
    memcpy(engine.memory, code, size);
    CHECK(!step(rig, 0, size));
    CHECK_EQUAL(control_line(rig->vcpu.control, 0, LINE_INTR, true), 0);
    __atomic_store_n(&rig->vcpu.run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    bool taken = step(rig, size, 1);
    tear_down(rig);
    return taken;
}

static void an_interrupt_is_taken_behind_most_instructions(void)
{
    CHECK(taken_behind("\x90", 1));
    CHECK(taken_behind("\xb0\xfb", 2));     /* mov al, 0fbh, which ends like STI */
    CHECK(taken_behind("\x8e\xd8", 2));     /* mov ds, ax */
    CHECK(taken_behind("\x9d", 1));         /* popf */
}

static void an_interrupt_waits_for_the_instruction_behind_sti_and_loads_of_ss(void)
{
    CHECK(!taken_behind("\xfb", 1));
    CHECK(!taken_behind("\x17", 1));        /* pop ss */
    CHECK(!taken_behind("\x8e\xd0", 2));    /* mov ss, ax */
    CHECK(!taken_behind("\x66\x8e\xd0", 3));
}

static void an_interrupt_waits_while_they_are_off(void)
{
    struct rig *rig = set_up();
    CHECK_EQUAL(control_line(rig->vcpu.control, 0, LINE_INTR, true), 0);
    for (int i = 0; i < 3; i++)
        CHECK(!step(rig, (uint64_t)i, 1));
    engine.flags = INTERRUPTS_ON;
    CHECK(step(rig, 3, 1));
    tear_down(rig);
}

static void a_trap_stops_the_engine_and_leaves_its_vector(void)
{
    struct rig *rig = set_up();
    CHECK_EQUAL(rig->emulated.trap, EMULATED_NO_TRAP);
    emulated_trap(NULL, 0x21, &rig->emulated);
    CHECK_EQUAL(rig->emulated.trap, 0x21);
    CHECK_EQUAL(engine.stops, 1);
    tear_down(rig);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(an_access_is_served_while_the_engine_waits),
        TEST(what_nobody_claims_reads_all_ones_in_its_width),
        TEST(an_access_over_the_edge_of_a_device_goes_byte_by_byte),
        TEST(an_access_that_fails_ends_the_guest_before_its_next_instruction),
        TEST(a_write_to_a_rom_is_undone_before_the_next_instruction),
        TEST(more_writes_to_a_rom_than_any_instruction_makes_overflow_nothing),
        TEST(a_guest_that_is_wanted_is_stopped_before_its_next_instruction),
        TEST(an_interrupt_is_taken_behind_most_instructions),
        TEST(an_interrupt_waits_for_the_instruction_behind_sti_and_loads_of_ss),
        TEST(an_interrupt_waits_while_they_are_off),
        TEST(a_trap_stops_the_engine_and_leaves_its_vector),
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
