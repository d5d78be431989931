/* The native protocol inside WebSocket (RFC 6455) binary messages, sub-protocol `longwire.v1`.
 *
 * Each packet goes out as one masked message. What comes in is taken out of its messages into `inner` and read
 * there as one stream, for a native frame may span messages (docs/protocol.md §6).
 */
#include <strings.h>
#include <sys/random.h>

#include "frame.h"
#include "native_codec.h"

/* RFC 6455's own sample key, so that the answer is known without SHA-1. The key is no secret: it only shows that
 * the other side understood the upgrade. */
#define SAMPLE_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define SAMPLE_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum { OP_CONTINUATION = 0, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };
enum { MAX_MESSAGE = FRAME_HEADER + FRAME_MAX_BODY, MAX_RESPONSE = 8192 };

static struct buffer packet; /* one packet, before it is masked */

static void put_message(struct fleet *f, struct conn *c, uint8_t opcode, struct span bytes)
{
    static uint32_t mask_state;
    uint8_t mask[4];
    struct buffer *out = &c->out;

    if (mask_state == 0 && getrandom(&mask_state, sizeof mask_state, 0) != sizeof mask_state)
        mask_state = 1;
    mask_state = mask_state * 1664525 + 1013904223; /* spread, not secret */
    memcpy(mask, &mask_state, sizeof mask);

    buffer_append_byte(out, 0x80 | opcode);
    if (bytes.length < 126) {
        buffer_append_byte(out, 0x80 | (uint8_t)bytes.length);
    } else if (bytes.length <= UINT16_MAX) {
        buffer_append_byte(out, 0x80 | 126);
        buffer_append_be(out, bytes.length, 2);
    } else {
        buffer_append_byte(out, 0x80 | 127);
        buffer_append_be(out, bytes.length, 8);
    }
    buffer_append(out, mask, sizeof mask);
    uint8_t *at = buffer_reserve(out, bytes.length);
    for (size_t i = 0; i < bytes.length; i++)
        at[i] = bytes.data[i] ^ mask[i & 3];
    buffer_grow_by(out, bytes.length);
    fleet_touch(f, c);
}

static void put_packet(struct fleet *f, struct conn *c)
{
    put_message(f, c, OP_BINARY, (struct span){packet.data + packet.start, buffer_length(&packet)});
    packet.start = packet.end = 0;
}

static void hello(struct fleet *f, struct conn *c)
{
    char request[512];
    int n = snprintf(request, sizeof request,
                     "GET /ws HTTP/1.1\r\nHost: %s:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: " SAMPLE_KEY "\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Protocol: longwire.v1\r\n\r\n", f->options->host, f->options->port);
    buffer_append(&c->out, request, (size_t)n);
    fleet_touch(f, c);
}

static bool header_is(const char *response, const char *name, const char *value)
{
    size_t name_length = strlen(name), value_length = strlen(value);
    for (const char *line = strstr(response, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, name_length) != 0 || line[2 + name_length] != ':')
            continue;
        const char *at = line + 3 + name_length;
        at += strspn(at, " \t");
        return strncmp(at, value, value_length) == 0 && at[value_length] == '\r';
    }
    return false;
}

/* Bytes of the server's answer to the upgrade; 0 when it is not whole, -1 when it is no. */
static int64_t read_upgrade(struct fleet *f, struct conn *c, struct span bytes)
{
    const uint8_t *end = memmem(bytes.data, bytes.length, "\r\n\r\n", 4);
    if (end == NULL)
        return bytes.length > MAX_RESPONSE ? -1 : 0;
    size_t length = (size_t)(end - bytes.data) + 4;
    char response[MAX_RESPONSE + 8];
    if (length > MAX_RESPONSE)
        return -1;
    memcpy(response, bytes.data, length);
    response[length] = '\0';
    if (strncmp(response, "HTTP/1.1 101", 12) != 0 || !header_is(response, "Sec-WebSocket-Accept", SAMPLE_ACCEPT) ||
        !header_is(response, "Sec-WebSocket-Protocol", "longwire.v1")) {
        fleet_conn_end(f, c, ENDED_REFUSED);
        return (int64_t)length;
    }
    c->websocket.upgraded = true;
    native_put_connect(&packet, f->options->tokens[c->index], f->options->device_ids[c->index],
                       f->options->heartbeat_s);
    put_packet(f, c);
    return (int64_t)length;
}

static bool read_message(struct fleet *f, struct conn *c, uint8_t opcode, struct span bytes)
{
    struct buffer *inner = &c->websocket.inner;
    switch (opcode) {
    case OP_BINARY: case OP_CONTINUATION: {
        buffer_append(inner, bytes.data, bytes.length);
        int64_t used = native_feed(f, c, (struct span){inner->data + inner->start, buffer_length(inner)});
        if (used < 0)
            return false;
        buffer_consume(inner, (size_t)used);
        return true;
    }
    case OP_PING: put_message(f, c, OP_PONG, bytes); return true;
    case OP_PONG: return true;
    case OP_CLOSE:
        fleet_conn_end(f, c, bytes.length >= 2 ? (int)read_be(bytes.data, 2) : ENDED_EOF);
        return true;
    default: return false;
    }
}

static int64_t feed(struct fleet *f, struct conn *c, struct span bytes)
{
    size_t used = 0;
    if (!c->websocket.upgraded) {
        int64_t n = read_upgrade(f, c, bytes);
        if (n <= 0 || c->state == CONN_CLOSED)
            return n;
        used = (size_t)n;
    }
    while (c->state != CONN_CLOSED && bytes.length - used >= 2) {
        const uint8_t *at = bytes.data + used;
        size_t header = 2, have = bytes.length - used;
        uint64_t length = at[1]; /* a server does not mask: the high bit makes this too large */
        if (length == 126 || length == 127) {
            header = length == 126 ? 4 : 10;
            if (have < header)
                break;
            length = read_be(at + 2, (int)header - 2);
        } else if (length > 127) {
            return -1;
        }
        if ((at[0] & 0x70) != 0 || length > MAX_MESSAGE)
            return -1;
        if (have - header < length)
            break;
        if (!read_message(f, c, at[0] & 0x0f, (struct span){at + header, (size_t)length}))
            return -1;
        used += header + (size_t)length;
    }
    return (int64_t)used;
}

static void send_message(struct fleet *f, struct conn *c, const struct outgoing *m)
{
    native_put_send(&packet, m);
    put_packet(f, c);
}

static void put_empty(struct fleet *f, struct conn *c, enum command command, uint32_t correlation)
{
    frame_empty(&packet, command, correlation);
    put_packet(f, c);
}

static void ack(struct fleet *f, struct conn *c, uint32_t handle) { put_empty(f, c, CMD_ACK, handle); }
static void ping(struct fleet *f, struct conn *c) { put_empty(f, c, CMD_PING, 1); }
static void pong(struct fleet *f, struct conn *c, uint32_t correlation) { put_empty(f, c, CMD_PONG, correlation); }

const struct protocol protocol_websocket = {"websocket", hello, feed, send_message, ack, ping, pong};
