/* load: a load generator that believes nothing.
 *
 *     load [-p PATH] [-t SECONDS] [-u BYTES] keepalive|close HOST PORT CONNECTIONS REQUESTS BODY
 *
 * Sends REQUESTS times "GET PATH" (default /) over CONNECTIONS connections at a time, in a closed
 * loop (a connection asks again when it has its answer), and holds every answer against what it has
 * to be: status 200, a Content-Length equal to the length of BODY, exactly those bytes, nothing
 * after them, and an orderly end where the connection ends.  What differs is counted by its kind,
 * and is left out of the latencies.  One thread and one epoll(7), so that it takes little of the
 * machine.  BODY may be @FILE: the file's bytes.
 *
 * -t: begins no more requests after so many seconds, even if REQUESTS are not sent by then.
 * -u: "POST PATH" instead, with so many bytes of body.
 *
 * keepalive: a connection is used until the server says "Connection: close".
 * close: a connection for each request, which says so; the server has to close it.
 *
 * Prints one JSON object: requests is how many were begun, seconds of the wall clock for all of it;
 * latencies in microseconds, from the connect (close) or the send (keepalive) to the last byte of
 * the body; client_us is the CPU time of this program per request; connections is how many were
 * opened.
 * Exits with 0 whatever the server did, 2 for wrong arguments, 1 where this program can't go on.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 16384, EVENTS = 256, PIECE = 262144, MOST = 10000000 };

#ifndef SILENCE_MS
#define SILENCE_MS 10000 /* a test has less patience */
#endif

/* How an answer can be wrong.  OK is first: the others are the names in "errors". */
enum outcome { OK, CONNECT, RESET, SHORT, STATUS, BODY, TIMEOUT, OUTCOMES };
static const char *const names[OUTCOMES] = {"ok",     "connect", "reset",  "short",
                                            "status", "body",    "timeout"};

struct connection {
    int fd; /* -1: none */
    uint32_t watched; /* the events that it is registered for; 0: none */
    size_t sent; /* bytes of the request that are on their way */
    int closing; /* the answer is whole: only the end of the connection is to come */
    int last; /* the server will close, or was asked to */
    size_t have; /* bytes of the answer in `buffer`: its head, and what came with it */
    int headed; /* the head is whole */
    size_t body; /* bytes of the body that have come and were right */
    long long began, took; /* nanoseconds */
    char buffer[ROOM + 1];
};

static int one_shot;
static struct sockaddr_in server;
static char request[512];
static size_t request_size, upload;
static char piece[PIECE]; /* what is uploaded, and where large answers are read to */
static const char *body;
static size_t body_size;
static long long deadline; /* nanoseconds; 0: none */
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

static void watch(struct connection *c, uint32_t events)
{
    if (c->watched == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll, c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &event) < 0)
        fail("epoll_ctl");
    c->watched = events;
}

static void drop(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->watched = 0;
}

static void count(struct connection *c, enum outcome outcome)
{
    if (outcome == OK)
        latencies[counts[OK]] = c->took;
    counts[outcome]++;
    done++;
}

/* Sends the request, as much as is taken now; 0 where there is more to send, -1 for an error. */
static int ask(struct connection *c)
{
    static char zeros[PIECE];
    while (c->sent < request_size + upload) {
        const char *from = request + c->sent;
        size_t size = request_size - c->sent;
        if (c->sent >= request_size) {
            from = zeros;
            size = request_size + upload - c->sent;
            if (size > PIECE)
                size = PIECE;
        }
        int more = upload && c->sent < request_size ? MSG_MORE : 0;
        ssize_t n = send(c->fd, from, size, MSG_NOSIGNAL | more);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        c->sent += n;
    }
    return 1;
}

static enum outcome reason(void)
{
    return errno == ECONNRESET || errno == EPIPE ? RESET : CONNECT;
}

/* Takes the next request for this connection, opening one if need be.  A failure counts as a
 * request of its own, so that a dead server ends the run instead of prolonging it. */
static void next(struct connection *c)
{
    while (begun < total && !(deadline && now() > deadline)) {
        int reused = c->fd >= 0;
        begun++;
        c->have = c->sent = c->body = 0;
        c->headed = c->closing = 0;
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
        watch(c, sent ? EPOLLIN : EPOLLIN | EPOLLOUT);
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

/* What has come of the body is right; 1: and whole, 0: there is more to come, -1: it is wrong. */
static int body_goes_on(struct connection *c, const char *data, size_t size)
{
    if (size > body_size - c->body || memcmp(data, body + c->body, size))
        return -1;
    c->body += size;
    return c->body == body_size;
}

/* 1: whole and right; 0: there is more to come; -1: wrong, for *why. */
static int judge(struct connection *c, enum outcome *why)
{
    c->buffer[c->have] = 0;
    char *blank = strstr(c->buffer, "\r\n\r\n");
    *why = BODY;
    if (!blank)
        return c->have < ROOM ? 0 : -1;
    if (strncmp(c->buffer, "HTTP/1.1 200 ", 13)) {
        *why = STATUS;
        return -1;
    }
    size_t head = blank + 4 - c->buffer;
    blank[2] = 0;
    const char *length = header(c->buffer, "Content-Length");
    const char *connection = header(c->buffer, "Connection");
    int right = length && strtoul(length, NULL, 10) == body_size;
    if (connection && !strncasecmp(connection, "close", 5))
        c->last = 1;
    c->headed = 1;
    return right ? body_goes_on(c, c->buffer + head, c->have - head) : -1;
}

static void hear(struct connection *c)
{
    for (;;) {
        char *room = c->headed ? piece : c->buffer + c->have;
        ssize_t n = recv(c->fd, room, c->headed ? PIECE : ROOM - c->have, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            return end(c, reason(), 0);
        if (n == 0)
            return end(c, c->closing ? OK : SHORT, 0);
        if (c->closing)
            return end(c, BODY, 0); /* bytes after the answer */
        enum outcome why = BODY;
        int verdict;
        if (c->headed) {
            verdict = body_goes_on(c, piece, n);
        } else {
            c->have += n;
            verdict = judge(c, &why);
        }
        if (verdict < 0)
            return end(c, why, 0);
        if (verdict) {
            c->took = now() - c->began;
            if (c->sent < request_size + upload)
                return end(c, BODY, 0); /* an answer to what it has not read */
            if (!c->last)
                return end(c, OK, 1);
            c->closing = 1;
        }
    }
}

static void turn(struct connection *c, uint32_t events)
{
    if (c->sent) {
        if (events & EPOLLOUT) {
            int sent = ask(c);
            if (sent < 0)
                return end(c, reason(), 0);
            if (sent)
                watch(c, EPOLLIN);
        }
        if (events & ~EPOLLOUT)
            hear(c);
        return;
    }
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error || !(events & EPOLLOUT))
        return end(c, CONNECT, 0);
    int sent = ask(c);
    if (sent < 0)
        return end(c, reason(), 0);
    if (sent)
        watch(c, EPOLLIN);
}

static int by_size(const void *a, const void *b)
{
    long long x = *(const long long *)a, y = *(const long long *)b;
    return (x > y) - (x < y);
}

/* The nearest-rank percentile, in microseconds. */
static double percentile(int permille)
{
    long n = counts[OK];
    return n ? latencies[(n * permille + 999) / 1000 - 1] / 1e3 : 0;
}

static void report(double seconds)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec +
                 (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    qsort(latencies, counts[OK], sizeof *latencies, by_size);
    printf("{\"requests\": %ld, \"ok\": %ld, \"connections\": %ld, \"seconds\": %.6f, ", begun,
           counts[OK], opened, seconds);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f, ",
           percentile(500), percentile(990), percentile(999), percentile(1000));
    printf("\"client_us\": %.2f, ", cpu * 1e6 / begun);
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
    while (done < begun) {
        int n = epoll_wait(epoll, events, EVENTS, SILENCE_MS);
        if (n < 0 && errno != EINTR)
            fail("epoll_wait");
        for (int i = 0; i < n; i++)
            turn(events[i].data.ptr, events[i].events);
        if (n == 0) { /* nothing from anybody: what is under way is lost, and no more is asked */
            if (!deadline)
                begun = total;
            counts[TIMEOUT] += begun - done;
            return;
        }
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: load [-p PATH] [-t SECONDS] [-u BYTES] keepalive|close HOST PORT "
                    "CONNECTIONS REQUESTS BODY\n"
                    "       HOST an IPv4 address, CONNECTIONS 1 to 1000, REQUESTS 1 to 10000000,\n"
                    "       SECONDS up to 600, BODY may be @FILE\n");
    return 2;
}

static void expect(const char *text)
{
    body = text;
    body_size = strlen(text);
    if (*text != '@')
        return;
    int fd = open(text + 1, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) < 0)
        fail(text + 1);
    body_size = status.st_size;
    body = mmap(NULL, body_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (body == MAP_FAILED)
        fail("mmap");
    close(fd);
}

int main(int argc, char **argv)
{
    const char *path = "/";
    double seconds = 0;
    for (int option; (option = getopt(argc, argv, "p:t:u:")) != -1;) {
        if (option == 'p')
            path = optarg;
        else if (option == 't')
            seconds = atof(optarg);
        else if (option == 'u')
            upload = strtoul(optarg, NULL, 10);
        else
            return usage();
    }
    argc -= optind;
    argv += optind;
    if (argc != 6 || (strcmp(argv[0], "keepalive") && strcmp(argv[0], "close")))
        return usage();
    one_shot = !strcmp(argv[0], "close");
    int port = atoi(argv[2]), connections = atoi(argv[3]);
    total = atol(argv[4]);
    server.sin_family = AF_INET;
    server.sin_port = htons(port);
    if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1 || port < 1 || port > 65535 ||
        connections < 1 || connections > 1000 || total < 1 || total > MOST || seconds < 0 ||
        seconds > 600)
        return usage();
    expect(argv[5]);
    char length[64] = "";
    if (upload)
        snprintf(length, sizeof length, "Content-Length: %zu\r\n", upload);
    request_size = snprintf(request, sizeof request,
                            "%s %s HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: load\r\n"
                            "Accept: */*\r\n%s%s\r\n",
                            upload ? "POST" : "GET", path, argv[1], port, length,
                            one_shot ? "Connection: close\r\n" : "");
    if (request_size >= sizeof request)
        return usage();
    struct connection *all = calloc(connections, sizeof *all);
    latencies = calloc(total, sizeof *latencies);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!all || !latencies || epoll < 0)
        fail("load");
    for (int i = 0; i < connections; i++)
        all[i].fd = -1;
    long long start = now();
    if (seconds > 0)
        deadline = start + (long long)(seconds * 1e9);
    run(all, connections);
    report((now() - start) / 1e9);
    return 0;
}
