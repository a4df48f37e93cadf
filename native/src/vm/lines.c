#include "vm/lines.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

void lines_init(struct lines *lines)
{
    pthread_mutex_init(&lines->lock, NULL);
}

void lines_free(struct lines *lines)
{
    pthread_mutex_destroy(&lines->lock);
}

/* With the lock held, as all that follows. */
static void queue(struct lines *lines, uint32_t line, uint8_t level)
{
    if (line >= LINES_ISA || line == LINE_CASCADE)
        return;
    if (lines->last - lines->first == LINES_QUEUE) {
        lines->overrun = true;
        return;
    }
    lines->queue[lines->last++ % LINES_QUEUE] = (struct line_change){ (uint8_t)line, level };
}

static int tell(struct lines *lines, int vm_fd, uint32_t line)
{
    uint8_t level = lines->high[line] != 0;
    if (lines->held || lines->told[line] == level)
        return 0;
    lines->told[line] = level;
    if (lines->userspace_irqchip) {
        if (line == LINE_INTR)
            atomic_store(&lines->asked, level);
        else
            queue(lines, line, level);
        return 0;
    }
    struct kvm_irq_level argument = { .irq = line, .level = level };
    return ioctl(vm_fd, KVM_IRQ_LINE, &argument) < 0 ? -1 : 0;
}

int lines_drive(struct lines *lines, int vm_fd, unsigned source, uint32_t line, bool level)
{
    if (line >= LINES || source >= LINES_SOURCES) {
        errno = EINVAL;
        return -1;
    }
    pthread_mutex_lock(&lines->lock);
    if (level)
        lines->high[line] |= 1u << source;
    else
        lines->high[line] &= ~(1u << source);
    int result = tell(lines, vm_fd, line);
    int error = errno;
    pthread_mutex_unlock(&lines->lock);
    errno = error;
    return result;
}

void lines_userspace_irqchip(struct lines *lines)
{
    lines->userspace_irqchip = true;
}

bool lines_next(struct lines *lines, struct line_change *change)
{
    pthread_mutex_lock(&lines->lock);
    if (lines->first == lines->last && lines->overrun) {
        lines->overrun = false;
        for (uint32_t line = 0; line < LINES_ISA; line++)
            queue(lines, line, lines->told[line]);
    }
    bool found = lines->first != lines->last;
    if (found)
        *change = lines->queue[lines->first++ % LINES_QUEUE];
    pthread_mutex_unlock(&lines->lock);
    return found;
}

bool lines_wait(struct lines *lines)
{
    pthread_mutex_lock(&lines->lock);
    bool waits = lines->first != lines->last || lines->overrun;
    pthread_mutex_unlock(&lines->lock);
    return waits;
}

void lines_forget(struct lines *lines)
{
    pthread_mutex_lock(&lines->lock);
    for (uint32_t line = 0; line < LINES; line++)
        lines->high[line] &= 1;
    pthread_mutex_unlock(&lines->lock);
}

int lines_hold(struct lines *lines, int vm_fd, bool hold)
{
    pthread_mutex_lock(&lines->lock);
    lines->held = hold;
    int result = 0, error = 0;
    for (uint32_t line = 0; line < LINES && !hold; line++) {
        if (tell(lines, vm_fd, line) < 0) {
            result = -1;
            error = errno;
        }
    }
    pthread_mutex_unlock(&lines->lock);
    errno = error;
    return result;
}
