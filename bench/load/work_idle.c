/* idle: connections that do nothing but keep alive, so that what they cost the server can be read.
 *
 *   → READY {"connected": …}      then the caller measures
 *   ← a line, or the end of stdin
 *   → {"work": "idle", …}         whether they all were still there
 */
#include <stdio.h>
#include <unistd.h>

#include "fleet.h"
#include "works.h"

enum { TURN_US = 100000 };

int work_idle(struct fleet *f)
{
    uint64_t took_us = fleet_open(f);
    printf("READY {\"connected\": %u, \"failed\": %u, \"seconds\": %.3f, \"rate_per_s\": %.1f}\n", f->ready, f->failed,
           (double)took_us / 1e6, (double)f->authenticated * 1e6 / (double)took_us);
    fflush(stdout);

    fleet_watch(f, STDIN_FILENO);
    uint64_t held_from = now_us();
    while (!f->watched_fd_ready) {
        fleet_keep_alive(f);
        fleet_poll(f, TURN_US);
        fleet_flush(f);
    }
    printf("{\"work\": \"idle\", \"protocol\": \"%s\", \"asked\": %u, \"connected\": %u, \"failed\": %u, "
           "\"left\": %u, \"held_s\": %.1f, \"pings\": %llu, \"pongs\": %llu, \"closes\": ",
           f->protocol->name, f->options->connections, f->authenticated, f->failed, f->ready,
           (double)(now_us() - held_from) / 1e6, (unsigned long long)f->pings, (unsigned long long)f->pongs);
    tally_print(stdout, &f->endings, ending_name);
    puts("}");
    fleet_close_all(f);
    return 0;
}
