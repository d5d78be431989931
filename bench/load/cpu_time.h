/* CPU time of a server, for the CPU that a message costs: on a machine where server and generator share the cores,
 * that is the steadier figure.
 */
#ifndef LW_CPU_TIME_H
#define LW_CPU_TIME_H

#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

static inline uint64_t cpu_time_of_one_us(pid_t pid)
{
    char path[64], line[1024];
    unsigned long long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[n] = '\0';
    /* The name in brackets may itself hold blanks and brackets: count fields after the last one. */
    const char *after = line + n;
    while (after > line && *after != ')')
        after--;
    if (sscanf(after, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
        return 0;
    return (uint64_t)((user + system) * 1000000 / (unsigned long long)sysconf(_SC_CLK_TCK));
}

/* User and system time of all threads of `pid` and of its descendants so far, in µs (steps of 10 ms); 0 for what
 * cannot be read. */
static inline uint64_t cpu_time_us(pid_t pid)
{
    char path[64];
    int child;
    uint64_t total = cpu_time_of_one_us(pid);
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return total;
    while (fscanf(file, "%d", &child) == 1)
        total += cpu_time_us(child);
    fclose(file);
    return total;
}

/* The same of this program. */
static inline uint64_t own_cpu_time_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

#endif
