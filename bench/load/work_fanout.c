/* fanout: one device writes to a group (MQTT: to a topic), and all others get it. No receipt.
 *
 * Closed loop: of the messages on their way there are always --in-flight many; the next one goes when all receivers
 * have one of them. Which receiver has which message is kept until all have it, so that a second copy is told from a
 * first, and a missing one is found.
 */
#include "cpu_time.h"
#include "fleet.h"
#include "works.h"

enum { IDLE_TURN_US = 50000, SENDER = 0 };

struct message {
    uint64_t sent_us;
    uint32_t missing; /* receivers that do not have it */
    bool is_given_up;
    uint8_t *has_it; /* a bit for each device; NULL once all have it */
};

static struct {
    struct content content;
    struct message *messages;
    uint64_t next, room;
    uint64_t undecided; /* all before it are finished or given up */
    uint32_t in_flight;
    uint64_t *newest; /* by receiver: 1 + the highest number it got */
    uint8_t *spare;   /* bits to use again */
    /* The measured time: arrivals are counted in it, latencies are of messages sent in it. */
    uint64_t from_us, to_us;
    uint64_t delivered_in_time, finished_in_time;
    struct histogram latency, last_latency; /* of each delivery; of the last one of each message */
    uint64_t wanted, delivered, late, given_up, unsendable;
    uint64_t duplicates, out_of_order, corrupt, misrouted, foreign, stray_receipts;
} fan;

static size_t bytes_of_bits(const struct fleet *f) { return (f->options->connections + 7) / 8; }

static bool in_measured_time(uint64_t at_us) { return at_us >= fan.from_us && at_us < fan.to_us; }

static uint8_t *take_bits(const struct fleet *f)
{
    uint8_t *bits = fan.spare ? fan.spare : must_allocate(malloc(bytes_of_bits(f)));
    fan.spare = NULL;
    memset(bits, 0, bytes_of_bits(f));
    return bits;
}

static void finish(struct message *m, uint64_t now)
{
    if (fan.spare == NULL)
        fan.spare = m->has_it;
    else
        free(m->has_it);
    m->has_it = NULL;
    if (m->is_given_up)
        return;
    fan.in_flight--;
    fan.finished_in_time += in_measured_time(now);
    if (in_measured_time(m->sent_us))
        histogram_record(&fan.last_latency, now - m->sent_us);
}

static bool is_right(const struct fleet *f, uint64_t seq, const struct incoming *in)
{
    static const char prefix[] = "group:";
    const size_t prefix_length = sizeof prefix - 1;
    if (in->wants_ack ||
        !content_is_right(&fan.content, seq, fan.messages[seq].sent_us, in, f->options->device_ids[SENDER]))
        return false;
    return in->id.data == NULL || /* MQTT */
           (in->to.length > prefix_length && memcmp(in->to.data, prefix, prefix_length) == 0 &&
            span_equals((struct span){in->to.data + prefix_length, in->to.length - prefix_length},
                        span_of(f->options->group)));
}

static void on_message(struct fleet *f, struct conn *c, const struct incoming *in)
{
    uint64_t now = now_us(), seq = 0;
    uint8_t bit = (uint8_t)(1 << (c->index & 7));
    enum origin origin = content_origin(&fan.content, in->payload, &seq);
    if (origin == ANOTHER_RUN) {
        fan.foreign++;
        return;
    }
    if (origin == NOBODY || seq >= fan.next || !is_right(f, seq, in)) {
        fan.corrupt++;
        return;
    }
    struct message *m = &fan.messages[seq];
    if (c->index == SENDER) {
        fan.misrouted++;
        return;
    }
    if (m->has_it == NULL || (m->has_it[c->index / 8] & bit)) {
        fan.duplicates++;
        return;
    }
    m->has_it[c->index / 8] |= bit;
    m->missing--;
    if (seq < fan.newest[c->index])
        fan.out_of_order++;
    else
        fan.newest[c->index] = seq + 1;
    fan.delivered++;
    fan.late += m->is_given_up;
    fan.delivered_in_time += in_measured_time(now);
    if (in_measured_time(m->sent_us))
        histogram_record(&fan.latency, now - m->sent_us);
    if (m->missing == 0)
        finish(m, now);
}

static void on_receipt(struct fleet *f, struct conn *c, uint32_t ordinal, int status)
{
    (void)f, (void)c, (void)ordinal, (void)status;
    fan.stray_receipts++; /* none was asked for */
}

static void send_next(struct fleet *f)
{
    uint64_t seq = fan.next++;
    if (fan.next > fan.room) {
        fan.room = fan.room ? fan.room * 2 : 4096;
        fan.messages = must_allocate(realloc(fan.messages, fan.room * sizeof *fan.messages));
    }
    struct message *m = &fan.messages[seq];
    *m = (struct message){.sent_us = now_us(), .has_it = take_bits(f)};
    for (uint32_t i = SENDER + 1; i < f->size; i++) {
        if (f->conns[i].state == CONN_READY)
            m->missing++;
        else
            m->has_it[i / 8] |= (uint8_t)(1 << (i & 7)); /* it is gone: nobody waits for it, and nothing may come */
    }
    fan.wanted += m->missing;
    fan.in_flight++;

    struct outgoing out = {.ordinal = (uint32_t)seq, .to_group = f->options->group};
    content_id(&fan.content, seq, m->sent_us, out.id);
    out.payload = content_payload(&fan.content, seq, m->sent_us);
    f->protocol->send(f, &f->conns[SENDER], &out);
}

static bool can_send(const struct fleet *f)
{
    return f->conns[SENDER].state == CONN_READY && f->ready > 1;
}

/* A lost message cannot stall the loop. */
static void give_up(const struct fleet *f, uint64_t now)
{
    uint64_t timeout_us = (uint64_t)(f->options->timeout_s * 1e6);
    for (; fan.undecided < fan.next; fan.undecided++) {
        struct message *m = &fan.messages[fan.undecided];
        if (m->has_it == NULL)
            continue;
        if (now < m->sent_us + timeout_us)
            return;
        m->is_given_up = true;
        fan.given_up++;
        fan.in_flight--;
    }
}

static void turn(struct fleet *f)
{
    fleet_flush(f);
    fleet_keep_alive(f);
    fleet_poll(f, f->options->spin ? 0 : IDLE_TURN_US);
    give_up(f, now_us());
}

static void run_until(struct fleet *f, uint64_t end_us)
{
    while (now_us() < end_us) {
        if (!can_send(f))
            fan.unsendable++;
        while (can_send(f) && fan.in_flight < f->options->in_flight)
            send_next(f);
        turn(f);
    }
}

static void print_result(const struct fleet *f, uint64_t own_us, uint64_t server_us)
{
    const struct options *o = f->options;
    double measured_s = (double)(fan.to_us - fan.from_us) / 1e6;
    double deliveries = fan.delivered_in_time ? (double)fan.delivered_in_time : 1;
    printf("{\"work\": \"fanout\", \"protocol\": \"%s\", \"receivers\": %u, \"connected\": %u, \"in_flight\": %u, "
           "\"payload_bytes\": %u, \"measured_s\": %.3f, \"deliveries_per_s\": %.1f, \"messages_per_s\": %.2f, "
           "\"generator_cpu_us_per_delivery\": %.3f",
           o->protocol->name, f->size - 1, f->ready, o->in_flight, o->payload_bytes, measured_s,
           (double)fan.delivered_in_time / measured_s, (double)fan.finished_in_time / measured_s,
           (double)own_us / deliveries);
    if (o->server_pid)
        printf(", \"server_cpu_us_per_delivery\": %.3f", (double)server_us / deliveries);
    fputs(", \"latency\": ", stdout);
    histogram_print(stdout, &fan.latency);
    fputs(", \"last_latency\": ", stdout);
    histogram_print(stdout, &fan.last_latency);
    const struct { const char *name; uint64_t count; } counts[] = {
        {"sent", fan.next}, {"wanted", fan.wanted}, {"received", fan.delivered},
        {"lost", fan.wanted - fan.delivered}, {"given_up", fan.given_up}, {"late", fan.late},
        {"duplicates", fan.duplicates}, {"out_of_order", fan.out_of_order}, {"corrupt", fan.corrupt},
        {"misrouted", fan.misrouted}, {"foreign", fan.foreign}, {"stray_receipts", fan.stray_receipts},
        {"unsendable", fan.unsendable}, {"failed_connects", f->failed}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        printf(", \"%s\": %llu", counts[i].name, (unsigned long long)counts[i].count);
    fputs(", \"closes\": ", stdout);
    tally_print(stdout, &f->endings, ending_name);
    puts("}");
}

int work_fanout(struct fleet *f)
{
    const struct options *o = f->options;
    f->listener.message = on_message;
    f->listener.receipt = on_receipt;
    content_init(&fan.content, o->payload_bytes);
    fan.newest = must_allocate(calloc(o->connections, sizeof *fan.newest));
    fleet_open(f);
    if (!can_send(f)) {
        fputs("lwload: the sender or all receivers did not come up: ", stderr);
        tally_print(stderr, &f->endings, ending_name);
        fputc('\n', stderr);
        return 1;
    }
    fan.from_us = now_us() + (uint64_t)(o->warmup_s * 1e6);
    fan.to_us = fan.from_us + (uint64_t)(o->seconds * 1e6);

    run_until(f, fan.from_us);
    uint64_t own_us = own_cpu_time_us(), server_us = o->server_pid ? cpu_time_us(o->server_pid) : 0;
    run_until(f, fan.to_us);
    own_us = own_cpu_time_us() - own_us;
    server_us = o->server_pid ? cpu_time_us(o->server_pid) - server_us : 0;
    /* Not to the last delivery only: a repeat or a straggler of what was given up may come a little later. */
    uint64_t drained_us = now_us() + (uint64_t)(o->drain_s * 1e6), linger_us = 0;
    for (uint64_t now = now_us(); now < drained_us && (linger_us == 0 || now < linger_us); now = now_us()) {
        if (fan.wanted == fan.delivered && linger_us == 0)
            linger_us = now + 200000;
        turn(f);
    }
    print_result(f, own_us, server_us);
    fleet_close_all(f);
    return 0;
}
