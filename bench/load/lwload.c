/* lwload: load for servers of long-lived connections, one generator for every protocol.
 *
 *   lwload.c ─► options.c ─► work_*.c ─► fleet.c (loop) ─► protocol_*.c ─► transport_*.c
 */
#include <stdio.h>
#include <string.h>

#include "fleet.h"
#include "works.h"

int main(int argc, char **argv)
{
    static const struct { const char *name; int (*run)(struct fleet *); } works[] = {
        {"idle", work_idle}, {"return", work_return}, {"connect", work_connect}, {"relay", work_relay},
        {"fanout", work_fanout}, {"push", work_push}, {"post", work_post}};
    static struct options options;
    static struct fleet fleet;

    for (size_t i = 0; argc > 1 && i < sizeof works / sizeof *works; i++) {
        if (strcmp(argv[1], works[i].name) != 0)
            continue;
        options_parse(&options, argc - 1, argv + 1);
        if (works[i].run == work_relay || works[i].run == work_fanout)
            options.subscribe = true;
        if (works[i].run == work_fanout && options.group == NULL) {
            fputs("lwload: fanout needs --group\n", stderr);
            return 2;
        }
        if (works[i].run == work_post)
            options.protocol = &protocol_http;
        fleet_init(&fleet, &options);
        return works[i].run(&fleet);
    }
    fputs("usage: lwload idle|connect|relay|fanout|push|post --port N …; without --port: all options\n", stderr);
    return 2;
}
