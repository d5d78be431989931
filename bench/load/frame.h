/* The native frame: a 12-byte big-endian header, then the body (docs/protocol.md §1).
 *
 * Both ends use this file: the generator's native protocol and the bare epoll relay.
 */
#ifndef LW_FRAME_H
#define LW_FRAME_H

#include <stdbool.h>

#include "buffer.h"

enum { FRAME_MAGIC = 0xA7, FRAME_HEADER = 12, FRAME_MAX_BODY = 65536 };
enum { FLAG_ACK = 2, FLAG_TRACE = 4, TRACE_BYTES = 24 };

enum command {
    CMD_CONNECT = 0x01, CMD_CONNECTED = 0x02, CMD_PING = 0x03, CMD_PONG = 0x04, CMD_RENEWED = 0x06,
    CMD_MOVE = 0x07, CMD_CLOSE = 0x08, CMD_SEND = 0x10, CMD_SENT = 0x11, CMD_PUSH = 0x20, CMD_ACK = 0x21,
};

struct frame {
    uint8_t flags, command;
    uint32_t correlation;
    struct span body; /* without the trace context */
};

/* The next whole frame of `bytes`: its size in bytes, 0 when more must come, -1 when this is no frame. */
static inline int64_t frame_parse(struct span bytes, struct frame *out)
{
    const uint8_t *h = bytes.data;
    if (bytes.length < FRAME_HEADER)
        return 0;
    uint32_t length = (uint32_t)read_be(h + 4, 4);
    if (h[0] != FRAME_MAGIC || h[1] >> 4 != 1 || (h[1] & 9) || h[3] != 0 || length > FRAME_MAX_BODY)
        return -1;
    if (bytes.length < FRAME_HEADER + (size_t)length)
        return 0;
    size_t trace = h[1] & FLAG_TRACE ? TRACE_BYTES : 0;
    if (length < trace)
        return -1;
    out->flags = h[1] & 0x0f;
    out->command = h[2];
    out->correlation = (uint32_t)read_be(h + 8, 4);
    out->body = (struct span){h + FRAME_HEADER + trace, length - trace};
    return FRAME_HEADER + (int64_t)length;
}

/* Writes a header whose length frame_end fills in; gives the mark that frame_end needs. */
static inline size_t frame_begin(struct buffer *b, uint8_t flags, enum command command, uint32_t correlation)
{
    uint8_t *h = buffer_reserve(b, FRAME_HEADER);
    h[0] = FRAME_MAGIC;
    h[1] = 0x10 | flags;
    h[2] = (uint8_t)command;
    h[3] = 0;
    write_be(h + 4, 0, 4);
    write_be(h + 8, correlation, 4);
    buffer_grow_by(b, FRAME_HEADER);
    /* Relative to `start`: a later reserve may move the unread bytes to the front. */
    return buffer_length(b);
}

static inline void frame_end(struct buffer *b, size_t mark)
{
    write_be(b->data + b->start + mark - 8, buffer_length(b) - mark, 4);
}

static inline void frame_empty(struct buffer *b, enum command command, uint32_t correlation)
{
    frame_begin(b, 0, command, correlation);
}

#endif
