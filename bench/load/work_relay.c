/* relay: each device writes to its peer, as fast as answers come (closed loop) or by a fixed schedule (open loop).
 *
 * In the open loop a message's time runs from when it was due, not from when this program got round to sending it;
 * else a server that stalls would also stall the clock that measures it (coordinated omission).
 */
#include "cpu_time.h"
#include "fleet.h"
#include "ledger.h"
#include "works.h"

enum { IDLE_TURN_US = 50000, CATCH_UP_A_TURN = 10000 };

struct relay {
    struct ledger ledger;
    uint64_t started_us;
    struct histogram lag; /* open loop: how late this program itself was */
};

struct cpu {
    uint64_t generator_us, server_us;
};

static struct relay relay;

static void on_message(struct fleet *f, struct conn *c, const struct incoming *m)
{
    ledger_deliver(&relay.ledger, c->index, m, now_us());
    if (m->wants_ack)
        f->protocol->ack(f, c, m->handle);
}

static void on_receipt(struct fleet *f, struct conn *c, uint32_t ordinal, int status)
{
    (void)f;
    ledger_confirm(&relay.ledger, c->index, ordinal, status, now_us());
}

static void send_next(struct fleet *f, uint64_t sent_us)
{
    struct conn *c = &f->conns[ledger_next_sender(&relay.ledger)];
    struct outgoing message;
    if (c->state != CONN_READY) {
        ledger_skip(&relay.ledger);
        return;
    }
    ledger_enter(&relay.ledger, sent_us, &message);
    f->protocol->send(f, c, &message);
}

/* Sends what may go now; gives how long until there is more to do. */
static uint64_t send_due(struct fleet *f, uint64_t now)
{
    struct ledger *l = &relay.ledger;
    const struct options *o = f->options;
    if (f->ready == 0 || ledger_is_full(l))
        return IDLE_TURN_US;
    if (o->rate == 0) {
        while (l->in_flight < o->in_flight && !ledger_is_full(l))
            send_next(f, now_us());
        return IDLE_TURN_US;
    }
    for (int n = 0; n < CATCH_UP_A_TURN && !ledger_is_full(l); n++) {
        uint64_t due = relay.started_us + (uint64_t)((double)l->next * 1e6 / o->rate);
        if (due > now)
            return due - now < IDLE_TURN_US ? due - now : IDLE_TURN_US;
        if (due >= l->from_us)
            histogram_record(&relay.lag, now - due);
        send_next(f, due);
    }
    return 0;
}

static void turn(struct fleet *f, uint64_t wait_us)
{
    fleet_flush(f);
    fleet_keep_alive(f);
    fleet_poll(f, f->options->spin ? 0 : wait_us);
    ledger_give_up(&relay.ledger, now_us());
}

static void run_until(struct fleet *f, uint64_t end_us)
{
    for (uint64_t now = now_us(); now < end_us; now = now_us()) {
        uint64_t wait_us = send_due(f, now);
        turn(f, wait_us < end_us - now ? wait_us : end_us - now);
    }
}

static struct cpu cpu_now(const struct options *o)
{
    return (struct cpu){own_cpu_time_us(), o->server_pid ? cpu_time_us(o->server_pid) : 0};
}

static void print_result(const struct fleet *f, double measured_s, struct cpu spent)
{
    const struct options *o = f->options;
    const struct ledger *l = &relay.ledger;
    const struct losses losses = ledger_losses(l);
    const char *loop = o->rate > 0 ? "open" : "closed";
    uint64_t done = o->to_application ? l->confirmed_in_time : l->delivered_in_time;
    double messages = done ? (double)done : 1;

    printf("{\"work\": \"relay\", \"protocol\": \"%s\", \"connections\": %u, \"connected\": %u, "
           "\"loop\": \"%s\", \"in_flight\": %u, \"offered_per_s\": %.0f, \"payload_bytes\": %u, \"receipt\": %s, "
           "\"measured_s\": %.3f",
           o->protocol->name, f->size, f->ready, loop, o->rate > 0 ? 0 : o->in_flight, o->rate, o->payload_bytes,
           o->receipt ? "true" : "false", measured_s);
    printf(", \"rate_per_s\": %.1f, \"confirmed_per_s\": %.1f", (double)l->delivered_in_time / measured_s,
           (double)l->confirmed_in_time / measured_s);
    printf(", \"generator_cpu_us_per_message\": %.2f", (double)spent.generator_us / messages);
    if (o->server_pid)
        printf(", \"server_cpu_us_per_message\": %.2f", (double)spent.server_us / messages);
    fputs(", \"latency\": ", stdout);
    histogram_print(stdout, &l->delivery_latency);
    fputs(", \"receipt_latency\": ", stdout);
    histogram_print(stdout, &l->receipt_latency);
    fputs(", \"send_lag\": ", stdout);
    histogram_print(stdout, &relay.lag);
    printf(", \"sent\": %llu, \"received\": %llu, \"confirmed\": %llu", (unsigned long long)l->sent,
           (unsigned long long)l->delivered, (unsigned long long)l->confirmed);
    const struct { const char *name; uint64_t count; } counts[] = {
        {"lost", losses.lost}, {"lost_confirmed", losses.lost_confirmed}, {"unanswered", losses.unanswered},
        {"delivered_though_refused", losses.delivered_though_refused}, {"given_up", l->given_up}, {"late", l->late},
        {"duplicates", l->duplicates}, {"out_of_order", l->out_of_order}, {"corrupt", l->corrupt},
        {"misrouted", l->misrouted}, {"foreign", l->foreign}, {"stray_receipts", l->stray_receipts},
        {"unsendable", l->unsendable}, {"failed_connects", f->failed}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        printf(", \"%s\": %llu", counts[i].name, (unsigned long long)counts[i].count);
    fputs(", \"sent_statuses\": ", stdout);
    tally_print(stdout, &l->statuses, NULL);
    fputs(", \"closes\": ", stdout);
    tally_print(stdout, &f->endings, ending_name);
    puts("}");
}

int work_relay(struct fleet *f)
{
    const struct options *o = f->options;
    struct ledger *l = &relay.ledger;

    f->listener.message = on_message;
    f->listener.receipt = on_receipt;
    ledger_init(l, o);
    fleet_open(f);
    if (f->ready == 0) {
        fputs("lwload: no connection came up: ", stderr);
        tally_print(stderr, &f->endings, ending_name);
        fputc('\n', stderr);
        return 1;
    }
    relay.started_us = now_us();
    l->from_us = relay.started_us + (uint64_t)(o->warmup_s * 1e6);
    l->to_us = l->from_us + (uint64_t)(o->seconds * 1e6);

    run_until(f, l->from_us);
    struct cpu before = cpu_now(o);
    run_until(f, l->to_us);
    struct cpu after = cpu_now(o);
    for (uint64_t end = now_us() + (uint64_t)(o->drain_s * 1e6); l->in_flight > 0 && now_us() < end;)
        turn(f, IDLE_TURN_US);
    fleet_flush(f); /* the last acknowledgements */

    print_result(f, (double)(l->to_us - l->from_us) / 1e6,
                 (struct cpu){after.generator_us - before.generator_us, after.server_us - before.server_us});
    fleet_close_all(f);
    return 0;
}
