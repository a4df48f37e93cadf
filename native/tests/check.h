/* The least that a test program needs: checks that name their line, and a table of tests. */
#ifndef KVMSHIM_TEST_CHECK_H
#define KVMSHIM_TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);    \
            abort();                                                                     \
        }                                                                                \
    } while (0)

#define CHECK_EQUAL(got, wanted)                                                         \
    do {                                                                                 \
        long long got_ = (long long)(got), wanted_ = (long long)(wanted);                \
        if (got_ != wanted_) {                                                           \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #got,   \
                    got_, wanted_);                                                      \
            abort();                                                                     \
        }                                                                                \
    } while (0)

struct test {
    const char *name;
    void (*run)(void);
};

#define TEST(name) { #name, name }

static inline int run_tests(const struct test *tests, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        printf("%s\n", tests[i].name);
        fflush(stdout);
        tests[i].run();
    }
    return 0;
}

#endif
