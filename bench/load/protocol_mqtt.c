/* MQTT 3.1.1, as much as two devices need that write to each other: each subscribes to `d/<its id>` and publishes
 * to the other's, at QoS 0, or QoS 1 where the work asks for receipts (PUBACK stands for SENT). A group is the topic
 * `g/<its name>`; all subscribe to it instead but the first, who writes to it.
 *
 * QoS 1 is a promise between neighbours: the broker's PUBACK says that it has the message in memory, not on disk.
 */
#include "fleet.h"

enum packet {
    MQTT_CONNECT = 0x10, MQTT_CONNACK = 0x20, MQTT_PUBLISH = 0x30, MQTT_PUBACK = 0x40,
    MQTT_SUBSCRIBE = 0x82, MQTT_SUBACK = 0x90, MQTT_PINGREQ = 0xC0, MQTT_PINGRESP = 0xD0,
};
enum { MAX_PACKET = 65536, PACKET_IDS = 65535 /* 1 … 65535: 0 is none */, QOS_MASK = 0x06, QOS_1 = 0x02 };

static void put_header(struct buffer *b, uint8_t type, size_t length)
{
    buffer_append_byte(b, type);
    do {
        uint8_t seven = length & 0x7f;
        length >>= 7;
        buffer_append_byte(b, length ? seven | 0x80 : seven);
    } while (length);
}

static void put_text(struct buffer *b, const char *text)
{
    buffer_append_be(b, strlen(text), 2);
    buffer_append(b, text, strlen(text));
}

static void put_topic(struct buffer *b, const char *to_group, const char *to_device)
{
    const char *name = to_group ? to_group : to_device;
    buffer_append_be(b, strlen(name) + 2, 2);
    buffer_append(b, to_group ? "g/" : "d/", 2);
    buffer_append(b, name, strlen(name));
}

static void hello(struct fleet *f, struct conn *c)
{
    const char *client_id = f->options->device_ids[c->index];
    put_header(&c->out, MQTT_CONNECT, 10 + 2 + strlen(client_id));
    put_text(&c->out, "MQTT");
    buffer_append_byte(&c->out, 4);    /* level: 3.1.1 */
    buffer_append_byte(&c->out, 0x02); /* clean session */
    buffer_append_be(&c->out, f->options->heartbeat_s, 2);
    put_text(&c->out, client_id);
    fleet_touch(f, c);
}

static void subscribe(struct fleet *f, struct conn *c)
{
    const char *group = f->options->group, *device_id = f->options->device_ids[c->index];
    put_header(&c->out, MQTT_SUBSCRIBE, 2 + 2 + 2 + strlen(group ? group : device_id) + 1);
    buffer_append_be(&c->out, 1, 2);
    put_topic(&c->out, group, device_id);
    buffer_append_byte(&c->out, f->options->receipt ? 1 : 0);
    fleet_touch(f, c);
}

static bool on_publish(struct fleet *f, struct conn *c, uint8_t flags, struct span body)
{
    struct incoming m = {.wants_ack = (flags & QOS_MASK) == QOS_1};
    size_t at = 2;
    if (body.length < 2)
        return false;
    at += read_be(body.data, 2);
    if (m.wants_ack) {
        if (body.length < at + 2)
            return false;
        m.handle = (uint32_t)read_be(body.data + at, 2);
        at += 2;
    }
    if (body.length < at || (flags & QOS_MASK) > QOS_1)
        return false;
    m.payload = (struct span){body.data + at, body.length - at};
    if (f->listener.message)
        f->listener.message(f, c, &m);
    return true;
}

/* A packet id has 16 bits and the ordinal 32: it is the latest ordinal with that id. */
static bool on_puback(struct fleet *f, struct conn *c, struct span body)
{
    if (body.length < 2)
        return false;
    uint32_t last = c->mqtt.last_ordinal, id = (uint32_t)read_be(body.data, 2);
    uint32_t last_id = last % PACKET_IDS + 1, behind = (last_id + PACKET_IDS - id) % PACKET_IDS;
    if (id == 0 || behind > last)
        return false;
    if (f->listener.receipt)
        f->listener.receipt(f, c, last - behind, 0);
    return true;
}

static bool dispatch(struct fleet *f, struct conn *c, uint8_t first, struct span body)
{
    switch (first & 0xf0) {
    case MQTT_CONNACK:
        if (body.length != 2 || c->state != CONN_OPENING)
            return false;
        if (body.data[1] != 0)
            fleet_conn_end(f, c, ENDED_REFUSED);
        else if (f->options->subscribe && !(f->options->group && c->index == 0))
            subscribe(f, c);
        else
            fleet_conn_ready(f, c);
        return true;
    case MQTT_SUBACK:
        if (body.length != 3 || body.data[2] > 1 || c->state != CONN_OPENING)
            return false;
        fleet_conn_ready(f, c);
        return true;
    case MQTT_PUBLISH: return on_publish(f, c, first & 0x0f, body);
    case MQTT_PUBACK: return on_puback(f, c, body);
    case MQTT_PINGRESP: f->pongs++; return true;
    default: return false;
    }
}

static int64_t feed(struct fleet *f, struct conn *c, struct span bytes)
{
    size_t used = 0;
    while (c->state != CONN_CLOSED) {
        const uint8_t *at = bytes.data + used;
        size_t have = bytes.length - used, length = 0, header = 1;
        do {
            if (header == 5)
                return -1;
            if (have <= header)
                return (int64_t)used;
            length |= (size_t)(at[header] & 0x7f) << (7 * (header - 1));
        } while (at[header++] & 0x80);
        if (length > MAX_PACKET)
            return -1;
        if (have - header < length)
            break;
        if (!dispatch(f, c, at[0], (struct span){at + header, length}))
            return -1;
        used += header + length;
    }
    return (int64_t)used;
}

static void send_message(struct fleet *f, struct conn *c, const struct outgoing *m)
{
    size_t topic = 2 + 2 + strlen(m->to_group ? m->to_group : m->to_device);
    put_header(&c->out, MQTT_PUBLISH | (m->receipt ? QOS_1 : 0), topic + (m->receipt ? 2 : 0) + m->payload.length);
    put_topic(&c->out, m->to_group, m->to_device);
    if (m->receipt)
        buffer_append_be(&c->out, m->ordinal % PACKET_IDS + 1, 2);
    buffer_append(&c->out, m->payload.data, m->payload.length);
    c->mqtt.last_ordinal = m->ordinal;
    fleet_touch(f, c);
}

static void ack(struct fleet *f, struct conn *c, uint32_t handle)
{
    put_header(&c->out, MQTT_PUBACK, 2);
    buffer_append_be(&c->out, handle, 2);
    fleet_touch(f, c);
}

static void ping(struct fleet *f, struct conn *c)
{
    put_header(&c->out, MQTT_PINGREQ, 0);
    fleet_touch(f, c);
}

static void pong(struct fleet *f, struct conn *c, uint32_t correlation) /* an MQTT broker never asks */
{
    (void)f, (void)c, (void)correlation;
}

const struct protocol protocol_mqtt = {"mqtt", hello, feed, send_message, ack, ping, pong};
