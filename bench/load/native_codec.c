#include "native_codec.h"

#include "frame.h"
#include "msgpack.h"

void native_put_connect(struct buffer *b, const char *token, const char *device_id, uint32_t heartbeat_s)
{
    size_t mark = frame_begin(b, 0, CMD_CONNECT, 1);
    pack_array(b, 3);
    pack_str(b, span_of(token));
    pack_str(b, span_of(device_id));
    pack_uint(b, heartbeat_s);
    frame_end(b, mark);
}

void native_put_send(struct buffer *b, const struct outgoing *m)
{
    char to[128];
    int length = 0; /* to nobody: to the application */
    if (m->to_group || m->to_device)
        length = snprintf(to, sizeof to, "%s%s", m->to_group ? "group:" : "device:",
                          m->to_group ? m->to_group : m->to_device);

    size_t mark = frame_begin(b, m->receipt ? FLAG_ACK : 0, CMD_SEND, m->ordinal);
    pack_array(b, 4);
    pack_bin(b, (struct span){m->id, sizeof m->id});
    pack_str(b, (struct span){(const uint8_t *)to, (size_t)length});
    pack_str(b, span_of(MESSAGE_KIND));
    pack_bin(b, m->payload);
    frame_end(b, mark);
}

static bool on_connected(struct fleet *f, struct conn *c, struct unpacker *u)
{
    uint32_t fields = unpack_array(u);
    unpack_bytes(u); /* session id */
    int64_t heartbeat_s = unpack_int(u);
    if (u->bad || fields < 7 || heartbeat_s < 1 || c->state != CONN_OPENING)
        return false;
    if ((uint64_t)heartbeat_s < f->heartbeat_s)
        f->heartbeat_s = (uint32_t)heartbeat_s;
    fleet_conn_ready(f, c);
    return true;
}

static bool on_push(struct fleet *f, struct conn *c, const struct frame *frame, struct unpacker *u)
{
    uint32_t fields = unpack_array(u);
    struct incoming m = {.handle = frame->correlation, .wants_ack = (frame->flags & FLAG_ACK) != 0};
    m.id = unpack_bytes(u);
    m.kind = unpack_bytes(u);
    m.sender = unpack_bytes(u);
    m.payload = unpack_bytes(u);
    unpack_int(u); /* sent_at_ms */
    if (fields > 5)
        unpack_bytes(u); /* collapse key */
    if (fields > 6)
        m.to = unpack_bytes(u);
    if (u->bad || fields < 5 || m.id.length != 16 || m.handle == 0)
        return false;
    if (f->listener.message)
        f->listener.message(f, c, &m);
    return true;
}

static bool on_sent(struct fleet *f, struct conn *c, const struct frame *frame, struct unpacker *u)
{
    uint32_t fields = unpack_array(u);
    int64_t status = unpack_int(u);
    if (u->bad || fields < 1)
        return false;
    if (f->listener.receipt)
        f->listener.receipt(f, c, frame->correlation, (int)status);
    return true;
}

static bool on_close(struct fleet *f, struct conn *c, struct unpacker *u)
{
    unpack_array(u);
    int64_t code = unpack_int(u);
    if (u->bad)
        return false;
    fleet_conn_end(f, c, (int)code);
    return true;
}

static bool dispatch(struct fleet *f, struct conn *c, const struct frame *frame)
{
    struct unpacker u = {frame->body.data, frame->body.data + frame->body.length, false};
    switch (frame->command) {
    case CMD_CONNECTED: return on_connected(f, c, &u);
    case CMD_PUSH: return on_push(f, c, frame, &u);
    case CMD_SENT: return on_sent(f, c, frame, &u);
    case CMD_CLOSE: return on_close(f, c, &u);
    case CMD_PING: f->protocol->pong(f, c, frame->correlation); return true;
    case CMD_PONG: f->pongs++; return true;
    case CMD_MOVE: case CMD_RENEWED: return true; /* a run is shorter than any node's leaving */
    default: return false;
    }
}

int64_t native_feed(struct fleet *f, struct conn *c, struct span bytes)
{
    size_t used = 0;
    while (c->state != CONN_CLOSED) {
        struct frame frame;
        int64_t size = frame_parse((struct span){bytes.data + used, bytes.length - used}, &frame);
        if (size == 0)
            break;
        if (size < 0 || !dispatch(f, c, &frame))
            return -1;
        used += (size_t)size;
    }
    return (int64_t)used;
}
