/* The Unicorn engine's own interface, loaded at run time (native/src/unicorn/engine.h). */

const char *engine_load(const char *path);
const char *engine_explain(int error);
int engine_open(void **engine);
int engine_close(void *engine);
int engine_start(void *engine, uint32_t eip);
int engine_stop(void *engine);
int engine_read_register(void *engine, int number, uint64_t *value);
int engine_write_register(void *engine, int number, uint64_t value);
int engine_read_table(void *engine, int number, uint64_t *base, uint32_t *limit);
int engine_write_table(void *engine, int number, uint64_t base, uint32_t limit);
int engine_read_memory(void *engine, uint64_t address, void *bytes, uint64_t size);
int engine_write_memory(void *engine, uint64_t address, const void *bytes, uint64_t size);
int engine_map_memory(void *engine, uint64_t address, uint64_t size, uint32_t access, void *memory);
int engine_map_window(void *engine, uint64_t address, uint64_t size, void *read, void *write,
                      void *context);
int engine_hook(void *engine, int type, void *function, void *context, int instruction);
size_t engine_context_size(void *engine);
int engine_context_new(void *engine, void **context);
int engine_context_save(void *engine, void *context);
int engine_context_restore(void *engine, void *context);
int engine_context_free(void *context);
