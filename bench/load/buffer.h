/* Growable bytes with a read offset: what a connection still has to write, or has not yet understood.
 *
 *   data ──┬─ consumed ─┬──── unread ────┬─ free ─┐
 *          0          start            end      capacity
 *
 * Running out of memory ends the program: a benchmark that goes on without some of its messages would lie.
 */
#ifndef LW_BUFFER_H
#define LW_BUFFER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct buffer {
    uint8_t *data;
    size_t start, end, capacity;
};

struct span {
    const uint8_t *data;
    size_t length;
};

static inline void *must_allocate(void *memory)
{
    if (memory == NULL) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

static inline size_t buffer_length(const struct buffer *b) { return b->end - b->start; }

/* Room for `n` more bytes; the caller writes them at the result and then calls buffer_grow_by. */
static inline uint8_t *buffer_reserve(struct buffer *b, size_t n)
{
    if (b->capacity - b->end < n && b->start > 0) {
        memmove(b->data, b->data + b->start, buffer_length(b));
        b->end -= b->start;
        b->start = 0;
    }
    if (b->capacity - b->end < n) {
        size_t capacity = b->capacity ? b->capacity : 256;
        while (capacity - b->end < n)
            capacity *= 2;
        b->data = must_allocate(realloc(b->data, capacity));
        b->capacity = capacity;
    }
    return b->data + b->end;
}

static inline void buffer_grow_by(struct buffer *b, size_t n) { b->end += n; }

static inline void buffer_append(struct buffer *b, const void *bytes, size_t n)
{
    if (n == 0)
        return;
    memcpy(buffer_reserve(b, n), bytes, n);
    b->end += n;
}

static inline void buffer_append_byte(struct buffer *b, uint8_t byte) { buffer_append(b, &byte, 1); }

static inline void buffer_consume(struct buffer *b, size_t n)
{
    b->start += n;
    if (b->start == b->end)
        b->start = b->end = 0;
}

static inline void buffer_free(struct buffer *b)
{
    free(b->data);
    memset(b, 0, sizeof *b);
}

static inline struct span span_of(const char *text) { return (struct span){(const uint8_t *)text, strlen(text)}; }

static inline int span_equals(struct span a, struct span b)
{
    return a.length == b.length && memcmp(a.data, b.data, a.length) == 0;
}

static inline uint64_t read_be(const uint8_t *at, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

static inline void write_be(uint8_t *at, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--, value >>= 8)
        at[i] = (uint8_t)value;
}

static inline void buffer_append_be(struct buffer *b, uint64_t value, int bytes)
{
    write_be(buffer_reserve(b, (size_t)bytes), value, bytes);
    buffer_grow_by(b, (size_t)bytes);
}

#endif
