#include "options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "buffer.h"
#include "protocol.h"

static const char usage[] =
    "usage: lwload idle|return|connect|relay|fanout|push|post --port N [options]\n"
    "  --protocol P      native (default), websocket, mqtt\n"
    "  --host A          127.0.0.1\n"
    "  --port N,N,…      several nodes: the first part of the devices on the first one, and so on\n"
    "  --tokens FILE     lines `device_id,token`; without it: dev-000000, … with the token `none`\n"
    "  --connections N   how many (2000)\n"
    "  --first N         leave out the first N devices: another lwload has them (0)\n"
    "  --connecting K    at most so many on their way at a time (64: Mosquitto's backlog is 100)\n"
    "  --sources S       spread over so many source addresses 127.0.1.x (8)\n"
    "  --heartbeat S     announced interval in seconds (60)\n"
    "  --subscribe 0|1   MQTT idle and connect: also subscribe to the own topic (0)\n"
    "relay:\n"
    "  --in-flight W     closed loop: so many messages on their way in total (1000)\n"
    "  --rate R          open loop instead: R messages a second by a fixed schedule\n"
    "  --payload B       bytes of a message (128)\n"
    "  --receipt 0|1     1: flag 2, SENT and ACK (MQTT: QoS 1)\n"
    "  --to-application 0|1  1: messages to the application, each decided by its receipt (native; 0)\n"
    "  --spin 0|1        1: poll without sleeping, so that the server never pays for waking the generator (0)\n"
    "  --seconds S --warmup S   measured time, and the time before it (10, 2)\n"
    "  --timeout S       a message that takes longer is given up (5)\n"
    "  --drain S         wait so long for the rest at the end (10)\n"
    "  --server-pid PID  also read that process's CPU time over the measured time\n"
    "fanout: as relay without --rate and --receipt, and\n"
    "  --group ID        the first device writes to this group, all others get it\n"
    "push: acknowledges what comes; a line on stdin names a phase, its end ends the run\n"
    "  --seconds S       ends the run instead\n"
    "  --rate R          meanwhile R messages a second between the devices, --payload and --receipt as in relay\n"
    "  --lists 0|1       tell of each message (1)\n"
    "  --names-receiver 0|1  each payload must have its receiver's id in it (0)\n"
    "post: HTTP; --connections callers, each with one call at a time; --seconds, --warmup, --drain, --server-pid\n"
    "  --path P --key K  where to, and the API key\n"
    "  --bodies FILE     one JSON body a line, taken in turn\n"
    "  --count TEXT      what is counted in each answer; without it: good answers\n";

static void fail(const char *why, const char *what)
{
    fprintf(stderr, "lwload: %s%s\n%s", why, what, usage);
    exit(2);
}

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= least && value <= most)) {
        fprintf(stderr, "lwload: --%s %s is not a number from %g to %g\n", name, text, least, most);
        exit(2);
    }
    return value;
}

static const struct protocol *protocol_named(const char *name)
{
    static const struct protocol *const all[] = {&protocol_native, &protocol_websocket, &protocol_mqtt};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    fail("unknown protocol ", name);
    return NULL;
}

static void read_ports(struct options *o, const char *name, char *text)
{
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
        if (o->port_count == PORTS_MAX)
            fail("too many ports: ", name);
        o->ports[o->port_count++] = (uint16_t)number(name, word, 1, 65535);
    }
    o->port = o->ports[0];
}

static void load_devices(struct options *o, const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        fail("cannot read ", path);
    char line[1024];
    uint32_t needed = o->first + o->connections;
    for (uint32_t n = 0; n < needed; n++) {
        char *comma;
        if (fgets(line, sizeof line, file) == NULL || (comma = strchr(line, ',')) == NULL) {
            fprintf(stderr, "lwload: the token file has %u of the %u devices asked for\n", n, needed);
            exit(2);
        }
        if (n < o->first)
            continue;
        uint32_t i = n - o->first;
        *comma = '\0';
        comma[1 + strcspn(comma + 1, "\r\n")] = '\0';
        o->device_ids[i] = must_allocate(strdup(line));
        o->tokens[i] = must_allocate(strdup(comma + 1));
    }
    fclose(file);
}

static void invent_devices(struct options *o)
{
    for (uint32_t i = 0; i < o->connections; i++) {
        char id[32];
        snprintf(id, sizeof id, "dev-%06u", o->first + i);
        o->device_ids[i] = must_allocate(strdup(id));
        o->tokens[i] = "none";
    }
}

static void raise_file_limit(uint32_t connections)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (connections + 16 > limit.rlim_max) {
        fprintf(stderr, "lwload: %u connections need more than this process's limit of %llu open files\n",
                connections, (unsigned long long)limit.rlim_max);
        exit(2);
    }
}

void options_parse(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"protocol", 1, 0, 'p'},  {"host", 1, 0, 'h'},       {"port", 1, 0, 'P'},    {"tokens", 1, 0, 't'},
        {"connections", 1, 0, 'n'}, {"first", 1, 0, 'f'},      {"connecting", 1, 0, 'k'}, {"sources", 1, 0, 's'},
        {"heartbeat", 1, 0, 'b'},
        {"subscribe", 1, 0, 'u'}, {"in-flight", 1, 0, 'w'},  {"rate", 1, 0, 'r'},    {"payload", 1, 0, 'B'},
        {"receipt", 1, 0, 'c'},   {"seconds", 1, 0, 'S'},    {"warmup", 1, 0, 'W'},  {"timeout", 1, 0, 'T'},
        {"drain", 1, 0, 'D'},     {"to-application", 1, 0, 'A'}, {"spin", 1, 0, 'y'},     {"server-pid", 1, 0, 'i'}, {"group", 1, 0, 'g'},
        {"lists", 1, 0, 'l'},     {"names-receiver", 1, 0, 'N'}, {"path", 1, 0, 'a'}, {"key", 1, 0, 'K'},
        {"bodies", 1, 0, 'j'},    {"count", 1, 0, 'C'},      {0, 0, 0, 0}};
    const char *tokens = NULL;
    int choice, which = 0;

    *o = (struct options){.protocol = &protocol_native, .host = "127.0.0.1", .connections = 2000,
                          .connecting = 64, .sources = 8, .heartbeat_s = 60, .in_flight = 1000,
                          .payload_bytes = 128, .seconds = 10, .warmup_s = 2, .timeout_s = 5, .drain_s = 10,
                          .lists = true};
    while ((choice = getopt_long(argc, argv, "", names, &which)) != -1) {
        const char *name = choice == '?' ? "" : names[which].name;
        switch (choice) {
        case 'p': o->protocol = protocol_named(optarg); break;
        case 'h': o->host = optarg; break;
        case 'P': read_ports(o, name, optarg); break;
        case 't': tokens = optarg; break;
        case 'n': o->connections = (uint32_t)number(name, optarg, 2, 1e6); break;
        case 'f': o->first = (uint32_t)number(name, optarg, 0, 1e6); break;
        case 'k': o->connecting = (uint32_t)number(name, optarg, 1, 1e5); break;
        case 's': o->sources = (uint32_t)number(name, optarg, 1, 250); break;
        case 'b': o->heartbeat_s = (uint32_t)number(name, optarg, 10, 900); break;
        case 'u': o->subscribe = number(name, optarg, 0, 1) > 0; break;
        case 'w': o->in_flight = (uint32_t)number(name, optarg, 1, 1e6); break;
        case 'r': o->rate = number(name, optarg, 1, 1e7); break;
        case 'B': o->payload_bytes = (uint32_t)number(name, optarg, 32, 60000); break;
        case 'A': o->to_application = number(name, optarg, 0, 1) > 0; break;
        case 'y': o->spin = number(name, optarg, 0, 1) > 0; break;
        case 'c': o->receipt = number(name, optarg, 0, 1) > 0; break;
        case 'S': o->seconds = number(name, optarg, 0.1, 600); o->is_timed = true; break;
        case 'W': o->warmup_s = number(name, optarg, 0, 600); break;
        case 'T': o->timeout_s = number(name, optarg, 0.1, 600); break;
        case 'D': o->drain_s = number(name, optarg, 0, 600); break;
        case 'i': o->server_pid = (pid_t)number(name, optarg, 1, 1e9); break;
        case 'g': o->group = optarg; break;
        case 'l': o->lists = number(name, optarg, 0, 1) > 0; break;
        case 'N': o->names_receiver = number(name, optarg, 0, 1) > 0; break;
        case 'a': o->path = optarg; break;
        case 'K': o->key = optarg; break;
        case 'j': o->bodies = optarg; break;
        case 'C': o->count = optarg; break;
        default: fail("", "");
        }
    }
    if (o->group && strlen(o->group) > 100)
        fail("--group is too long: ", o->group);
    if (o->count && o->count[0] == '\0')
        fail("--count needs a text", "");
    if (o->port == 0)
        fail("--port is needed", "");
    raise_file_limit(o->connections);
    o->device_ids = must_allocate(calloc(o->connections, sizeof *o->device_ids));
    o->tokens = must_allocate(calloc(o->connections, sizeof *o->tokens));
    if (tokens)
        load_devices(o, tokens);
    else
        invent_devices(o);
}
