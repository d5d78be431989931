/* The native protocol on a bare byte stream: packets go as they are. */
#include "frame.h"
#include "native_codec.h"

static void hello(struct fleet *f, struct conn *c)
{
    const struct options *o = f->options;
    native_put_connect(&c->out, o->tokens[c->index], o->device_ids[c->index], o->heartbeat_s);
    fleet_touch(f, c);
}

static void send_message(struct fleet *f, struct conn *c, const struct outgoing *m)
{
    native_put_send(&c->out, m);
    fleet_touch(f, c);
}

static void ack(struct fleet *f, struct conn *c, uint32_t handle)
{
    frame_empty(&c->out, CMD_ACK, handle);
    fleet_touch(f, c);
}

static void ping(struct fleet *f, struct conn *c)
{
    frame_empty(&c->out, CMD_PING, 1);
    fleet_touch(f, c);
}

static void pong(struct fleet *f, struct conn *c, uint32_t correlation)
{
    frame_empty(&c->out, CMD_PONG, correlation);
    fleet_touch(f, c);
}

const struct protocol protocol_native = {"native", hello, native_feed, send_message, ack, ping, pong};
