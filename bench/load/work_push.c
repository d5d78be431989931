/* push: a fleet that is there, acknowledges what asks for it, and tells which message reached whom, and when.
 *
 *   → READY {"connected": …}   then the caller posts pushes
 *   ← a line: from now on it is the phase of this name (a-z, 0-9, -), for the latencies of the relay
 *   ← the end of stdin         (or --seconds are over)
 *   → {"work": "push", …}      times are those of CLOCK_MONOTONIC, in µs, as any process here reads it
 *
 * With --rate R the devices also write to each other by a fixed schedule (kind "bench", checked by the ledger), so
 * that one can see what a broadcast does to those who only talk to one another. What is of any other kind is a push:
 * its first copy says what all others must be.
 */
#include <unistd.h>

#include "fleet.h"
#include "ledger.h"
#include "works.h"

enum { TURN_US = 50000, CATCH_UP_A_TURN = 10000, PHASES_MAX = 16, NAME_BYTES = 32, TABLE_START = 1024 };

struct push {
    uint8_t id[16];
    uint32_t first_device, devices;
    uint64_t first_us, last_us, duplicates, corrupt;
    uint8_t *has_it; /* a bit for each device, from the second one on */
    struct buffer content; /* kind, 0, payload */
};

struct phase {
    char name[NAME_BYTES];
    uint64_t from_us;
    uint64_t sent;
    struct histogram latency, lag; /* lag: how late this program itself was */
};

static struct {
    struct ledger ledger;
    uint64_t started_us;
    uint32_t phases;
    struct phase phase[PHASES_MAX];
    char line[NAME_BYTES];
    size_t line_length;
    bool is_over;
    /* Open addressing by the id's last bytes; a power of two, at most half full. */
    struct push **table;
    size_t room, count;
    struct push **in_order;
    uint64_t deliveries, acks, duplicates, corrupt, misrouted, without_ack;
} state;

/* --- pushes ----------------------------------------------------------------------------------------------- */

static size_t slot_of(struct push **table, size_t room, const uint8_t *id)
{
    size_t slot = (size_t)read_be(id + 8, 8) * 0x9e3779b97f4a7c15u >> 20 & (room - 1);
    while (table[slot] != NULL && memcmp(table[slot]->id, id, 16) != 0)
        slot = (slot + 1) & (room - 1);
    return slot;
}

static void grow(void)
{
    size_t room = state.room ? state.room * 2 : TABLE_START;
    struct push **table = must_allocate(calloc(room, sizeof *table));
    for (size_t i = 0; i < state.count; i++)
        table[slot_of(table, room, state.in_order[i]->id)] = state.in_order[i];
    free(state.table);
    state.table = table;
    state.room = room;
    state.in_order = must_allocate(realloc(state.in_order, room / 2 * sizeof *state.in_order));
}

static struct push *push_of(const struct incoming *m, uint32_t device, uint64_t now)
{
    if (state.count == state.room / 2)
        grow();
    size_t slot = slot_of(state.table, state.room, m->id.data);
    if (state.table[slot] == NULL) {
        struct push *p = must_allocate(calloc(1, sizeof *p));
        memcpy(p->id, m->id.data, sizeof p->id);
        p->first_device = device;
        p->first_us = now;
        buffer_append(&p->content, m->kind.data, m->kind.length);
        buffer_append_byte(&p->content, 0);
        buffer_append(&p->content, m->payload.data, m->payload.length);
        state.table[slot] = state.in_order[state.count++] = p;
    }
    return state.table[slot];
}

static bool is_same(const struct push *p, const struct incoming *m)
{
    const uint8_t *kind = p->content.data + p->content.start;
    return buffer_length(&p->content) == m->kind.length + 1 + m->payload.length &&
           memcmp(kind, m->kind.data, m->kind.length) == 0 &&
           (m->payload.length == 0 || memcmp(kind + m->kind.length + 1, m->payload.data, m->payload.length) == 0);
}

/* Whether it is the first copy that this device gets. */
static bool mark(const struct fleet *f, struct push *p, uint32_t device)
{
    uint8_t bit = (uint8_t)(1 << (device & 7));
    if (p->devices == 0)
        return true;
    if (p->has_it == NULL) {
        if (device == p->first_device)
            return false;
        p->has_it = must_allocate(calloc((f->options->connections + 7) / 8, 1));
        p->has_it[p->first_device / 8] |= (uint8_t)(1 << (p->first_device & 7));
    }
    if (p->has_it[device / 8] & bit)
        return false;
    p->has_it[device / 8] |= bit;
    return true;
}

static void take_push(const struct fleet *f, uint32_t device, const struct incoming *m, uint64_t now)
{
    struct push *p = push_of(m, device, now);
    const char *own_id = f->options->device_ids[device];
    state.deliveries++;
    state.without_ack += !m->wants_ack;
    if (!is_same(p, m)) {
        p->corrupt++;
        state.corrupt++;
    } else if (f->options->names_receiver &&
               memmem(m->payload.data, m->payload.length, own_id, strlen(own_id)) == NULL) {
        state.misrouted++;
    } else if (!mark(f, p, device)) {
        p->duplicates++;
        state.duplicates++;
    } else {
        p->devices++;
        p->last_us = now;
    }
}

/* --- one to one, meanwhile -------------------------------------------------------------------------------- */

static struct phase *phase_at(uint64_t at_us)
{
    uint32_t i = state.phases;
    while (i > 0 && state.phase[i - 1].from_us > at_us)
        i--;
    return i ? &state.phase[i - 1] : NULL;
}

static void on_message(struct fleet *f, struct conn *c, const struct incoming *m)
{
    uint64_t now = now_us();
    if (span_equals(m->kind, span_of(MESSAGE_KIND))) {
        uint64_t sent_us = ledger_deliver(&state.ledger, c->index, m, now);
        struct phase *phase = sent_us ? phase_at(sent_us) : NULL;
        if (phase)
            histogram_record(&phase->latency, now - sent_us);
    } else {
        take_push(f, c->index, m, now);
    }
    if (m->wants_ack) {
        f->protocol->ack(f, c, m->handle);
        state.acks++;
    }
}

static void on_receipt(struct fleet *f, struct conn *c, uint32_t ordinal, int status)
{
    (void)f;
    ledger_confirm(&state.ledger, c->index, ordinal, status, now_us());
}

/* Sends what is due; gives how long until there is more to do. */
static uint64_t send_due(struct fleet *f)
{
    struct ledger *l = &state.ledger;
    if (f->options->rate == 0)
        return TURN_US;
    for (int n = 0; n < CATCH_UP_A_TURN && !ledger_is_full(l); n++) {
        uint64_t now = now_us(), due = state.started_us + (uint64_t)((double)l->next * 1e6 / f->options->rate);
        struct conn *c = &f->conns[ledger_next_sender(l)];
        struct outgoing message;
        struct phase *phase = phase_at(due);
        if (due > now)
            return due - now < TURN_US ? due - now : TURN_US;
        if (c->state != CONN_READY) {
            ledger_skip(l);
            continue;
        }
        if (phase) {
            histogram_record(&phase->lag, now - due);
            phase->sent++;
        }
        ledger_enter(l, due, &message);
        f->protocol->send(f, c, &message);
    }
    return 0;
}

/* --- what the caller says --------------------------------------------------------------------------------- */

static void begin_phase(void)
{
    if (state.phases == PHASES_MAX) {
        fputs("lwload: too many phases\n", stderr);
        exit(2);
    }
    struct phase *phase = &state.phase[state.phases++];
    memcpy(phase->name, state.line, state.line_length);
    phase->from_us = now_us();
}

static void hear(void)
{
    char bytes[256];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    if (n <= 0)
        state.is_over = true;
    for (ssize_t i = 0; i < n; i++) {
        char c = bytes[i];
        bool is_of_a_name = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
        if (c == '\n') {
            begin_phase();
            state.line_length = 0;
        } else if (is_of_a_name && state.line_length < NAME_BYTES - 1) {
            state.line[state.line_length++] = c;
        }
    }
}

static void run(struct fleet *f)
{
    const struct options *o = f->options;
    uint64_t end_us = o->is_timed ? now_us() + (uint64_t)(o->seconds * 1e6) : UINT64_MAX;
    if (!o->is_timed)
        fleet_watch(f, STDIN_FILENO);
    while (!state.is_over && now_us() < end_us) {
        uint64_t wait_us = send_due(f), now = now_us();
        fleet_flush(f);
        fleet_keep_alive(f);
        fleet_poll(f, now + wait_us < end_us ? wait_us : end_us > now ? end_us - now : 0);
        if (f->watched_fd_ready) {
            f->watched_fd_ready = false;
            hear();
        }
        ledger_give_up(&state.ledger, now_us());
    }
    for (uint64_t end = now_us() + (uint64_t)(o->drain_s * 1e6); state.ledger.in_flight > 0 && now_us() < end;) {
        fleet_flush(f);
        fleet_poll(f, TURN_US);
        ledger_give_up(&state.ledger, now_us());
    }
    fleet_flush(f); /* the last acknowledgements */
}

static void print_hex(const char *name, const uint8_t *bytes, size_t n)
{
    printf("\"%s\": \"", name);
    for (size_t i = 0; i < n; i++)
        printf("%02x", bytes[i]);
    putchar('"');
}

static void print_push(const struct push *p)
{
    const uint8_t *content = p->content.data + p->content.start;
    size_t kind = strlen((const char *)content);
    putchar('{');
    print_hex("id", p->id, sizeof p->id);
    fputs(", ", stdout);
    print_hex("kind_hex", content, kind);
    fputs(", ", stdout);
    print_hex("payload_hex", content + kind + 1, buffer_length(&p->content) - kind - 1);
    printf(", \"devices\": %u, \"duplicates\": %llu, \"corrupt\": %llu, \"first_us\": %llu, \"last_us\": %llu}",
           p->devices, (unsigned long long)p->duplicates, (unsigned long long)p->corrupt,
           (unsigned long long)p->first_us, (unsigned long long)p->last_us);
}

static void print_relay(const struct options *o)
{
    const struct ledger *l = &state.ledger;
    printf(", \"relay\": {\"offered_per_s\": %.0f, \"sent\": %llu, \"received\": %llu, \"phases\": {", o->rate,
           (unsigned long long)l->sent, (unsigned long long)l->delivered);
    for (uint32_t i = 0; i < state.phases; i++) {
        const struct phase *phase = &state.phase[i];
        printf("%s\"%s\": {\"from_us\": %llu, \"sent\": %llu, \"latency\": ", i ? ", " : "", phase->name,
               (unsigned long long)phase->from_us, (unsigned long long)phase->sent);
        histogram_print(stdout, &phase->latency);
        fputs(", \"send_lag\": ", stdout);
        histogram_print(stdout, &phase->lag);
        putchar('}');
    }
    fputs("}}", stdout);
}

static void print_result(const struct fleet *f)
{
    const struct ledger *l = &state.ledger;
    const struct losses losses = ledger_losses(l);
    printf("{\"work\": \"push\", \"protocol\": \"%s\", \"asked\": %u, \"connected\": %u, \"left\": %u",
           f->protocol->name, f->options->connections, f->authenticated, f->ready);
    const struct { const char *name; uint64_t count; } counts[] = {
        {"distinct", state.count}, {"deliveries", state.deliveries}, {"acks", state.acks},
        {"without_ack", state.without_ack}, {"duplicates", state.duplicates + l->duplicates},
        {"corrupt", state.corrupt + l->corrupt}, {"misrouted", state.misrouted + l->misrouted},
        {"lost", losses.lost}, {"lost_confirmed", losses.lost_confirmed}, {"unanswered", losses.unanswered},
        {"delivered_though_refused", losses.delivered_though_refused}, {"given_up", l->given_up}, {"late", l->late},
        {"out_of_order", l->out_of_order}, {"foreign", l->foreign}, {"stray_receipts", l->stray_receipts},
        {"unsendable", l->unsendable}, {"failed_connects", f->failed}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        printf(", \"%s\": %llu", counts[i].name, (unsigned long long)counts[i].count);
    fputs(", \"sent_statuses\": ", stdout);
    tally_print(stdout, &l->statuses, NULL);
    fputs(", \"closes\": ", stdout);
    tally_print(stdout, &f->endings, ending_name);
    print_relay(f->options);
    fputs(", \"pushes\": [", stdout);
    for (size_t i = 0; f->options->lists && i < state.count; i++) {
        fputs(i ? ", " : "", stdout);
        print_push(state.in_order[i]);
    }
    puts("]}");
}

int work_push(struct fleet *f)
{
    f->listener.message = on_message;
    f->listener.receipt = on_receipt;
    ledger_init(&state.ledger, f->options);
    uint64_t took_us = fleet_open(f);
    state.started_us = now_us();
    printf("READY {\"connected\": %u, \"failed\": %u, \"seconds\": %.3f, \"rate_per_s\": %.1f}\n", f->ready, f->failed,
           (double)took_us / 1e6, (double)f->authenticated * 1e6 / (double)took_us);
    fflush(stdout);
    run(f);
    print_result(f);
    fleet_close_all(f);
    return 0;
}
