/* As much of msgpack as the bodies of the device protocol use (docs/protocol.md §2).
 *
 * Reading never runs past the end: a fault sets `bad`, and everything read from then on is empty or 0, so a
 * caller checks once, after the last field.
 */
#ifndef LW_MSGPACK_H
#define LW_MSGPACK_H

#include <stdbool.h>

#include "buffer.h"

struct unpacker {
    const uint8_t *at, *end;
    bool bad;
};

static inline const uint8_t *unpack_take(struct unpacker *u, size_t n)
{
    if (u->bad || (size_t)(u->end - u->at) < n) {
        u->bad = true;
        return NULL;
    }
    const uint8_t *taken = u->at;
    u->at += n;
    return taken;
}

static inline uint64_t unpack_be(struct unpacker *u, int bytes)
{
    const uint8_t *at = unpack_take(u, (size_t)bytes);
    return at ? read_be(at, bytes) : 0;
}

static inline uint32_t unpack_array(struct unpacker *u)
{
    uint8_t tag = (uint8_t)unpack_be(u, 1);
    if ((tag & 0xf0) == 0x90)
        return tag & 0x0f;
    if (tag == 0xdc)
        return (uint32_t)unpack_be(u, 2);
    u->bad = true;
    return 0;
}

/* Any str or bin. */
static inline struct span unpack_bytes(struct unpacker *u)
{
    uint8_t tag = (uint8_t)unpack_be(u, 1);
    size_t length;
    switch (tag) {
    case 0xc4: case 0xd9: length = unpack_be(u, 1); break;
    case 0xc5: case 0xda: length = unpack_be(u, 2); break;
    case 0xc6: case 0xdb: length = unpack_be(u, 4); break;
    default:
        if ((tag & 0xe0) != 0xa0)
            u->bad = true;
        length = tag & 0x1f;
    }
    const uint8_t *at = unpack_take(u, length);
    return at ? (struct span){at, length} : (struct span){NULL, 0};
}

static inline int64_t unpack_int(struct unpacker *u)
{
    uint8_t tag = (uint8_t)unpack_be(u, 1);
    if (tag < 0x80)
        return tag;
    if (tag >= 0xe0)
        return (int8_t)tag;
    switch (tag) {
    case 0xcc: return (int64_t)unpack_be(u, 1);
    case 0xcd: return (int64_t)unpack_be(u, 2);
    case 0xce: return (int64_t)unpack_be(u, 4);
    case 0xcf: return (int64_t)unpack_be(u, 8);
    case 0xd0: return (int8_t)unpack_be(u, 1);
    case 0xd1: return (int16_t)unpack_be(u, 2);
    case 0xd2: return (int32_t)unpack_be(u, 4);
    case 0xd3: return (int64_t)unpack_be(u, 8);
    default: u->bad = true; return 0;
    }
}

static inline void pack_array(struct buffer *b, uint8_t fields) { buffer_append_byte(b, 0x90 | fields); }

static inline void pack_uint(struct buffer *b, uint64_t value)
{
    if (value < 0x80) {
        buffer_append_byte(b, (uint8_t)value);
    } else if (value <= UINT16_MAX) {
        buffer_append_byte(b, 0xcd);
        buffer_append_be(b, value, 2);
    } else if (value <= UINT32_MAX) {
        buffer_append_byte(b, 0xce);
        buffer_append_be(b, value, 4);
    } else {
        buffer_append_byte(b, 0xcf);
        buffer_append_be(b, value, 8);
    }
}

static inline void pack_str(struct buffer *b, struct span text)
{
    if (text.length < 32) {
        buffer_append_byte(b, 0xa0 | (uint8_t)text.length);
    } else if (text.length <= UINT8_MAX) {
        buffer_append_byte(b, 0xd9);
        buffer_append_byte(b, (uint8_t)text.length);
    } else {
        buffer_append_byte(b, 0xda);
        buffer_append_be(b, text.length, 2);
    }
    buffer_append(b, text.data, text.length);
}

static inline void pack_bin(struct buffer *b, struct span bytes)
{
    if (bytes.length <= UINT8_MAX) {
        buffer_append_byte(b, 0xc4);
        buffer_append_byte(b, (uint8_t)bytes.length);
    } else {
        buffer_append_byte(b, 0xc5);
        buffer_append_be(b, bytes.length, 2);
    }
    buffer_append(b, bytes.data, bytes.length);
}

#endif
