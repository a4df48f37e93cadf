#include "unicorn/emulated.h"

#include <stdlib.h>
#include <string.h>

#include "vcpu/access.h"
#include "unicorn/engine.h"
#include "vcpu/irqchip.h"

enum {
    FLAGS = 25, /* UC_X86_REG_EFLAGS */
    FLAG_INTERRUPT = 1 << 9,
};

struct kvm_run *emulated_run_page(void)
{
    return calloc(1, sizeof(struct kvm_run));
}

void emulated_free_run_page(struct kvm_run *run)
{
    free(run);
}

void emulated_prepare(struct emulated *emulated)
{
    emulated->result = VCPU_CONTINUE;
    emulated->trap = EMULATED_NO_TRAP;
    emulated->stopped = false;
}

/* -- accesses --------------------------------------------------------------------------------- */

static int serve_all(struct emulated *emulated, const struct vcpu_access *access)
{
    struct vcpu *vcpu = emulated->vcpu;
    int result = access_serve(vcpu, access);
    while (result == VCPU_LOCAL) {
        if (emulated->serve_local(emulated->context) < 0)
            return VCPU_STOPPED;
        result = access_serve_rest(vcpu, access);
    }
    return result;
}

/* The guest is left before its next instruction if the access says so. */
static void serve(struct emulated *emulated, const struct vcpu_access *access)
{
    struct vcpu *vcpu = emulated->vcpu;
    if (emulated->result != VCPU_CONTINUE) { /* the rest of an instruction that was given up */
        if (!access->direction)
            memset(access->data, 0xff, access->size);
        return;
    }
    vcpu->exits++;
    emulated->result = serve_all(emulated, access);
    if (emulated->result != VCPU_CONTINUE)
        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    vcpu_wait_for_inboxes(vcpu);
}

static uint64_t serve_value(struct emulated *emulated, struct vcpu_access access, uint64_t value)
{
    access.elements = 1;
    access.data = (uint8_t *)&value; /* x86 on x86: little-endian both */
    serve(emulated, &access);
    return value;
}

static uint32_t port_access(struct emulated *emulated, uint32_t port, int size, bool out,
                            uint32_t value)
{
    struct vcpu *vcpu = emulated->vcpu;
    vcpu->port_exits++;
    vcpu_mark(vcpu, (uint16_t)port);
    struct vcpu_access access = { .direction = out, .size = (uint8_t)size, .address = port & 0xffff };
    return (uint32_t)serve_value(emulated, access, value);
}

uint32_t emulated_in(void *engine, uint32_t port, int size, void *context)
{
    (void)engine;
    return port_access(context, port, size, false, 0);
}

void emulated_out(void *engine, uint32_t port, int size, uint32_t value, void *context)
{
    (void)engine;
    port_access(context, port, size, true, value);
}

static uint64_t memory_access(struct emulated *emulated, uint64_t address, unsigned size, bool write,
                              uint64_t value)
{
    emulated->vcpu->memory_exits++;
    struct vcpu_access access = {
        .space = SPACE_MEMORY,
        .direction = write,
        .size = (uint8_t)size,
        .address = address,
    };
    return serve_value(emulated, access, value);
}

uint64_t emulated_read(void *engine, uint64_t offset, unsigned size, void *context)
{
    struct emulated_window *window = context;
    (void)engine;
    return memory_access(window->emulated, window->start + offset, size, false, 0);
}

void emulated_write(void *engine, uint64_t offset, unsigned size, uint64_t value, void *context)
{
    struct emulated_window *window = context;
    (void)engine;
    memory_access(window->emulated, window->start + offset, size, true, value);
}

/* -- ROM -------------------------------------------------------------------------------------- */

/*
 * The engine tells of a write to memory that is read-only, and then does it all the same: what was
 * there is put back before the next instruction. As on KVM the write is an access to a device.
 */
bool emulated_write_rom(void *engine, int type, uint64_t address, int size, int64_t value,
                        void *context)
{
    struct emulated *emulated = context;
    (void)type;
    for (int i = 0; i < size && emulated->undo_count < EMULATED_UNDO_BYTES; i++) {
        struct emulated_undo *undo = &emulated->undo[emulated->undo_count];
        undo->address = address + (uint64_t)i;
        if (engine_read_memory(engine, undo->address, &undo->before, 1) == 0)
            emulated->undo_count++;
    }
    memory_access(emulated, address, (unsigned)size, true, (uint64_t)value);
    return true;
}

void emulated_undo(void *engine, struct emulated *emulated)
{
    while (emulated->undo_count > 0) {
        struct emulated_undo *undo = &emulated->undo[--emulated->undo_count];
        engine_write_memory(engine, undo->address, &undo->before, 1);
    }
}

/* -- between instructions --------------------------------------------------------------------- */

void emulated_trap(void *engine, uint32_t vector, void *context)
{
    struct emulated *emulated = context;
    emulated->trap = (int)vector;
    engine_stop(engine);
}

/* STI, POP SS and MOV SS keep interrupts off for one more instruction (Intel SDM volume 3, 6.8.3). */
static bool holds_off(void *engine, const struct emulated *emulated)
{
    uint8_t code[15];
    uint32_t size = emulated->size;
    if (size == 0 || size > sizeof code ||
        engine_read_memory(engine, emulated->address, code, size) != 0)
        return false;
    uint8_t last = code[size - 1];
    if (last == 0xfb || last == 0x17)
        return size == 1;
    for (uint32_t i = 0; i + 1 < size && i < 2; i++) /* behind a prefix at most */
        if (code[i] == 0x8e)
            return (code[i + 1] >> 3 & 7) == 2;
    return false;
}

bool emulated_takes_interrupt(void *engine, const struct emulated *emulated)
{
    uint64_t flags;
    if (engine_read_register(engine, FLAGS, &flags) != 0 || !(flags & FLAG_INTERRUPT))
        return false;
    return emulated->vcpu->halted || !holds_off(engine, emulated);
}

static bool is_wanted(void *engine, const struct emulated *emulated)
{
    const struct vcpu *vcpu = emulated->vcpu;
    if (__atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_RELAXED))
        return true;
    return atomic_load_explicit(&vcpu->control->lines.asked, memory_order_relaxed) &&
           emulated_takes_interrupt(engine, emulated);
}

void emulated_step(void *engine, uint64_t address, uint32_t size, void *context)
{
    struct emulated *emulated = context;
    if (emulated->undo_count)
        emulated_undo(engine, emulated);
    if (is_wanted(engine, emulated)) {
        emulated->stopped = true;
        engine_stop(engine);
        return;
    }
    emulated->address = address;
    emulated->size = size;
}
