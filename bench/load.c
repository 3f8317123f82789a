/* load: a load generator that believes nothing.
 *
 *     load keepalive|close HOST PORT CONNECTIONS REQUESTS BODY
 *
 * Sends exactly REQUESTS times "GET /" over CONNECTIONS connections at a time, in a closed loop (a
 * connection asks again when it has its answer), and holds every answer against what it has to be:
 * status 200, a Content-Length equal to the length of BODY, exactly those bytes, nothing after
 * them, and an orderly end where the connection ends.  What differs is counted by its kind, and is
 * left out of the latencies.  One thread and one epoll(7), so that it takes little of the machine.
 *
 * keepalive: a connection is used until the server says "Connection: close".
 * close: a connection for each request, which says so; the server has to close it.
 *
 * Prints one JSON object: seconds of the wall clock for all of it; latencies in microseconds, from
 * the connect (close) or the send (keepalive) to the last byte of the body; client_us is the CPU
 * time of this program per request; connections is how many were opened.
 * Exits with 0 whatever the server did, 2 for wrong arguments, 1 where this program can't go on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 16384, EVENTS = 256 };

#ifndef SILENCE_MS
#define SILENCE_MS 10000 /* a test has less patience */
#endif

/* How an answer can be wrong.  OK is first: the others are the names in "errors". */
enum outcome { OK, CONNECT, RESET, SHORT, STATUS, BODY, TIMEOUT, OUTCOMES };
static const char *const names[OUTCOMES] = {"ok",     "connect", "reset",  "short",
                                            "status", "body",    "timeout"};

struct connection {
    int fd; /* -1: none */
    int asked; /* the request is on its way */
    int closing; /* the answer is whole: only the end of the connection is to come */
    int last; /* the server will close, or was asked to */
    size_t have;
    long long began, took; /* nanoseconds */
    char buffer[ROOM + 1];
};

static int one_shot;
static struct sockaddr_in server;
static char request[512];
static size_t request_size;
static const char *body;
static size_t body_size;
static long total, begun, done, opened;
static long counts[OUTCOMES];
static long long *latencies;
static int epoll;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void watch(struct connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll, operation, c->fd, &event) < 0)
        fail("epoll_ctl");
}

static void drop(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void count(struct connection *c, enum outcome outcome)
{
    if (outcome == OK)
        latencies[counts[OK]] = c->took;
    counts[outcome]++;
    done++;
}

/* Sends the request; 0 where the connection is not up yet. */
static int ask(struct connection *c)
{
    ssize_t n = send(c->fd, request, request_size, MSG_NOSIGNAL);
    if (n == (ssize_t)request_size)
        return c->asked = 1;
    if (n >= 0)
        errno = EMSGSIZE; /* a few hundred bytes always fit an empty send buffer */
    return errno == EAGAIN ? 0 : -1;
}

static enum outcome reason(void)
{
    return errno == ECONNRESET || errno == EPIPE ? RESET : CONNECT;
}

/* Takes the next request for this connection, opening one if need be.  A failure counts as a
 * request of its own, so that a dead server ends the run instead of prolonging it. */
static void next(struct connection *c)
{
    while (begun < total) {
        int reused = c->fd >= 0;
        begun++;
        c->have = 0;
        c->asked = c->closing = 0;
        c->last = one_shot;
        c->began = now();
        if (!reused) {
            c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
            if (c->fd < 0)
                fail("socket");
            opened++;
            int on = 1;
            setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 &&
                errno != EINPROGRESS) {
                count(c, CONNECT);
                drop(c);
                continue;
            }
        }
        int sent = ask(c);
        if (sent < 0) {
            count(c, reason());
            drop(c);
            continue;
        }
        if (!reused)
            watch(c, EPOLL_CTL_ADD, sent ? EPOLLIN : EPOLLOUT);
        return;
    }
    drop(c);
}

static void end(struct connection *c, enum outcome outcome, int keep)
{
    count(c, outcome);
    if (!keep)
        drop(c);
    next(c);
}

/* The value of a header; NULL if it is not there.  The head ends in a NUL. */
static const char *header(const char *head, const char *name)
{
    size_t size = strlen(name);
    const char *line = head;
    while ((line = strstr(line, "\r\n"))) {
        line += 2;
        if (!strncasecmp(line, name, size) && line[size] == ':')
            return line + size + 1 + strspn(line + size + 1, " \t");
    }
    return NULL;
}

/* 1: whole and right; 0: there is more to come; -1: wrong, for *why. */
static int judge(struct connection *c, enum outcome *why)
{
    c->buffer[c->have] = 0;
    char *blank = strstr(c->buffer, "\r\n\r\n");
    if (!blank) {
        *why = BODY;
        return c->have < ROOM ? 0 : -1;
    }
    if (strncmp(c->buffer, "HTTP/1.1 200 ", 13)) {
        *why = STATUS;
        return -1;
    }
    size_t head = blank + 4 - c->buffer;
    *why = BODY;
    blank[2] = 0;
    const char *length = header(c->buffer, "Content-Length");
    const char *connection = header(c->buffer, "Connection");
    int right = length && strtoul(length, NULL, 10) == body_size;
    if (connection && !strncasecmp(connection, "close", 5))
        c->last = 1;
    blank[2] = '\r';
    if (!right || c->have > head + body_size)
        return -1;
    if (c->have < head + body_size)
        return 0;
    return memcmp(c->buffer + head, body, body_size) ? -1 : 1;
}

static void hear(struct connection *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, c->buffer + c->have, ROOM - c->have, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            return end(c, reason(), 0);
        if (n == 0)
            return end(c, c->closing ? OK : SHORT, 0);
        if (c->closing)
            return end(c, BODY, 0); /* bytes after the answer */
        c->have += n;
        enum outcome why;
        int verdict = judge(c, &why);
        if (verdict < 0)
            return end(c, why, 0);
        if (verdict) {
            c->took = now() - c->began;
            if (!c->last)
                return end(c, OK, 1);
            c->closing = 1;
        }
    }
}

static void turn(struct connection *c, uint32_t events)
{
    if (c->asked)
        return hear(c);
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error || !(events & EPOLLOUT))
        return end(c, CONNECT, 0);
    if (ask(c) < 0)
        return end(c, reason(), 0);
    if (c->asked)
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static int by_size(const void *a, const void *b)
{
    long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

/* The nearest-rank percentile, in microseconds. */
static double percentile(int percent)
{
    long n = counts[OK];
    return n ? latencies[(n * percent + 99) / 100 - 1] / 1e3 : 0;
}

static void report(double seconds)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec +
                 (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    qsort(latencies, counts[OK], sizeof *latencies, by_size);
    printf("{\"requests\": %ld, \"ok\": %ld, \"connections\": %ld, \"seconds\": %.6f, ", total,
           counts[OK], opened, seconds);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"client_us\": %.2f, ",
           percentile(50), percentile(99), percentile(100), cpu * 1e6 / total);
    printf("\"errors\": {");
    for (int i = CONNECT; i < OUTCOMES; i++)
        printf("%s\"%s\": %ld", i == CONNECT ? "" : ", ", names[i], counts[i]);
    printf("}}\n");
}

static void run(struct connection *all, int connections)
{
    struct epoll_event events[EVENTS];
    for (int i = 0; i < connections; i++)
        next(&all[i]);
    while (done < total) {
        int n = epoll_wait(epoll, events, EVENTS, SILENCE_MS);
        if (n < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < n; i++)
            turn(events[i].data.ptr, events[i].events);
        if (n == 0) { /* nothing from anybody: what is under way is lost, and no more is asked */
            counts[TIMEOUT] += total - done;
            return;
        }
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: load keepalive|close HOST PORT CONNECTIONS REQUESTS BODY\n"
                    "       HOST an IPv4 address, CONNECTIONS 1 to 1000, REQUESTS 1 to 10000000\n");
    return 2;
}

int main(int argc, char **argv)
{
    if (argc != 7 || (strcmp(argv[1], "keepalive") && strcmp(argv[1], "close")))
        return usage();
    one_shot = !strcmp(argv[1], "close");
    int port = atoi(argv[3]), connections = atoi(argv[4]);
    total = atol(argv[5]);
    body = argv[6];
    body_size = strlen(body);
    server.sin_family = AF_INET;
    server.sin_port = htons(port);
    if (inet_pton(AF_INET, argv[2], &server.sin_addr) != 1 || port < 1 || port > 65535 ||
        connections < 1 || connections > 1000 || total < 1 || total > 10000000)
        return usage();
    request_size = snprintf(request, sizeof request,
                            "GET / HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: load\r\n"
                            "Accept: */*\r\n%s\r\n",
                            argv[2], port, one_shot ? "Connection: close\r\n" : "");
    struct connection *all = calloc(connections, sizeof *all);
    latencies = calloc(total, sizeof *latencies);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!all || !latencies || epoll < 0)
        fail("load");
    for (int i = 0; i < connections; i++)
        all[i].fd = -1;
    long long start = now();
    run(all, connections);
    report((now() - start) / 1e9);
    return 0;
}
