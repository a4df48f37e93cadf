/*
 * The Unicorn engine's own interface (unicorn/unicorn.h and x86.h of version 2.1), as far as it is
 * used. The library comes with a Python package, at run time; when this is compiled there is
 * neither it nor its header, so the types here are the ones that those files document.
 *
 * Functions that return int give the engine's error numbers (uc_err), 0 for none.
 */
#ifndef KVMSHIM_ENGINE_H
#define KVMSHIM_ENGINE_H

#include <stddef.h>
#include <stdint.h>

/* Loads the library; NULL, or why that failed. Once it is loaded, nothing is done. */
const char *engine_load(const char *path);
/* What an error number means. */
const char *engine_explain(int error);

/* An x86 processor, in 32-bit mode as the interface counts. */
int engine_open(void **engine);
int engine_close(void *engine);
/* Runs the guest from CS:EIP, until it stops or engine_stop() is called. */
int engine_start(void *engine, uint32_t eip);
int engine_stop(void *engine);

/* Registers by uc_x86_reg; of a table (IDTR, GDTR) base and limit. */
int engine_read_register(void *engine, int number, uint64_t *value);
int engine_write_register(void *engine, int number, uint64_t value);
int engine_read_table(void *engine, int number, uint64_t *base, uint32_t *limit);
int engine_write_table(void *engine, int number, uint64_t base, uint32_t limit);

/* Guest-physical memory. */
int engine_read_memory(void *engine, uint64_t address, void *bytes, uint64_t size);
int engine_write_memory(void *engine, uint64_t address, const void *bytes, uint64_t size);
int engine_map_memory(void *engine, uint64_t address, uint64_t size, uint32_t access, void *memory);
/* read: uint64_t (engine, offset, unsigned size, context); write: void (…, uint64_t value, …). */
int engine_map_window(void *engine, uint64_t address, uint64_t size, void *read, void *write,
                      void *context);
/* Calls function at any address; type: uc_hook_type; instruction: uc_x86_insn, if type takes one. */
int engine_hook(void *engine, int type, void *function, void *context, int instruction);

/* A copy of the processor's whole state, whose layout is the library's own. */
size_t engine_context_size(void *engine);
int engine_context_new(void *engine, void **context);
int engine_context_save(void *engine, void *context);
int engine_context_restore(void *engine, void *context);
int engine_context_free(void *context);

#endif
