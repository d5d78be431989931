/* What the command line said, and the devices to be. */
#ifndef LW_OPTIONS_H
#define LW_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { PORTS_MAX = 64 };

struct options {
    const struct protocol *protocol;
    const char *host;
    uint16_t port, ports[PORTS_MAX]; /* port is the first of them */
    uint32_t port_count;
    uint32_t connections, first, connecting, sources, heartbeat_s;
    bool subscribe; /* MQTT only: native devices can be written to as soon as they are authenticated */
    /* relay */
    uint32_t in_flight, payload_bytes;
    bool receipt, is_timed; /* --seconds was given */
    bool to_application; /* no receiver: a message is decided by its receipt */
    bool spin; /* never sleep: a server that is waited for does not pay for waking us */
    double rate, seconds, warmup_s, timeout_s, drain_s;
    pid_t server_pid;
    const char *group; /* fanout; else NULL */
    bool lists, names_receiver; /* push */
    const char *path, *key, *bodies, *count; /* post; NULL where not given */
    /* devices */
    const char **device_ids, **tokens;
};

/* Ends the program with a sentence when the command line makes no sense. */
void options_parse(struct options *o, int argc, char **argv);

#endif
