/* return: idle connections that come back when they end, as the SDK does (src/longwire/client/backoff.py).
 *
 *   → READY {"connected": …}      then the caller kills what it likes
 *   ← a line, or the end of stdin
 *   → {"work": "return", …}       how many were lost, and how long it took from the first loss until all were back
 *
 * A device tries the next port of the list each time, behind a wait at random of up to 1, 2, 4 … 120 s.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fleet.h"
#include "works.h"

enum { TURN_US = 10000, FIRST_BOUND_US = 1000000, MAX_BOUND_US = 120000000 };

struct absence {
    uint32_t failures;
    uint64_t due_us; /* 0: it is there, or on its way */
};

static uint64_t wait_us(uint32_t failures)
{
    uint64_t bound = failures < 7 ? (uint64_t)FIRST_BOUND_US << failures : MAX_BOUND_US;
    return (uint64_t)(drand48() * (double)bound);
}

int work_return(struct fleet *f)
{
    struct absence *absences = must_allocate(calloc(f->size, sizeof *absences));
    uint64_t lost_at = 0, back_at = 0;
    uint32_t lost = 0, tries = 0, on_way = 0;
    uint64_t took_us = fleet_open(f);
    printf("READY {\"connected\": %u, \"failed\": %u, \"seconds\": %.3f, \"rate_per_s\": %.1f}\n", f->ready, f->failed,
           (double)took_us / 1e6, (double)f->authenticated * 1e6 / (double)took_us);
    fflush(stdout);
    srand48((long)now_us());

    fleet_watch(f, STDIN_FILENO);
    while (!f->watched_fd_ready) {
        fleet_keep_alive(f);
        fleet_poll(f, TURN_US);
        fleet_flush(f);
        uint64_t now = now_us();
        on_way = 0;
        for (uint32_t i = 0; i < f->size; i++)
            on_way += f->conns[i].state != CONN_READY && f->conns[i].state != CONN_CLOSED;
        for (uint32_t i = 0; i < f->size; i++) {
            struct conn *c = &f->conns[i];
            struct absence *a = &absences[i];
            if (c->state != CONN_CLOSED)
                continue;
            if (a->due_us == 0) {
                lost += a->failures == 0;
                lost_at = lost_at ? lost_at : now;
                a->due_us = now + 1 + wait_us(a->failures++);
            } else if (now >= a->due_us && on_way < f->options->connecting) {
                a->due_us = 0;
                tries++;
                on_way++;
                fleet_reopen(f, c, a->failures);
            }
        }
        if (lost && !back_at && f->ready == f->size)
            back_at = now;
    }
    printf("{\"work\": \"return\", \"protocol\": \"%s\", \"asked\": %u, \"connected\": %u, \"lost\": %u, \"tries\": %u, "
           "\"back_s\": %.3f, \"closes\": ",
           f->protocol->name, f->options->connections, f->ready, lost, tries,
           back_at ? (double)(back_at - lost_at) / 1e6 : -1.0);
    tally_print(stdout, &f->endings, ending_name);
    puts("}");
    fleet_close_all(f);
    free(absences);
    return 0;
}
