/* connect: how fast connections come up, and how long each takes from connect() to its CONNECTED. */
#include <stdio.h>

#include "fleet.h"
#include "works.h"

int work_connect(struct fleet *f)
{
    uint64_t took_us = fleet_open(f);
    printf("{\"work\": \"connect\", \"protocol\": \"%s\", \"connecting\": %u, \"asked\": %u, \"connected\": %u, "
           "\"failed\": %u, \"seconds\": %.3f, \"rate_per_s\": %.1f, \"latency\": ",
           f->protocol->name, f->options->connecting, f->options->connections, f->authenticated, f->failed,
           (double)took_us / 1e6, (double)f->authenticated * 1e6 / (double)took_us);
    histogram_print(stdout, &f->connect_latency);
    fputs(", \"closes\": ", stdout);
    tally_print(stdout, &f->endings, ending_name);
    puts("}");
    fleet_close_all(f);
    return 0;
}
