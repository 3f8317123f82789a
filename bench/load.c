/* load: a load generator that believes nothing.
 *
 *     load [-p PATH] [-r REQUEST] [-s] [-t SECONDS] [-u BYTES]
 *         keepalive|close HOST PORT CONNECTIONS REQUESTS BODY
 *
 * Sends REQUESTS times "GET PATH" (default /) over CONNECTIONS connections at a time, in a closed
 * loop (a connection asks again when it has its answer), and holds every answer against what it has
 * to be: status 200, a Content-Length equal to the length of BODY, exactly those bytes, nothing
 * after them, and an orderly end where the connection ends.  What differs is counted by its kind,
 * and is left out of the latencies.  One thread and one epoll(7), so that it takes little of the
 * machine.  BODY may be @FILE: the file's bytes.
 *
 * -r: sends these bytes in place of that request, head and body.  Each run of four # or more is
 *     replaced by digits of a number that is another one for each request: a cookie, an id, a path
 *     that no server has seen before.
 * -s: speaks TLS, and believes any certificate; only if it was compiled with -DTLS and OpenSSL.
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
#include <signal.h>
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
#ifdef TLS
#include <openssl/ssl.h>
#endif

enum { ROOM = 16384, EVENTS = 256, PIECE = 262144, MOST = 10000000,
       REQUEST = 65536, MARKS = 64, FEWEST = 4 };

#ifndef SILENCE_MS
#define SILENCE_MS 10000 /* a test has less patience */
#endif

/* How an answer can be wrong.  OK is first: the others are the names in "errors". */
enum outcome { OK, CONNECT, RESET, SHORT, STATUS, BODY, TIMEOUT, OUTCOMES };
static const char *const names[OUTCOMES] = {"ok",     "connect", "reset",  "short",
                                            "status", "body",    "timeout"};

struct connection {
    int fd; /* -1: none */
#ifdef TLS
    SSL *tls;
#endif
    uint32_t wants; /* the event without which the last send could not go on */
    unsigned long long serial; /* in place of the marks in its request */
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
static char request[REQUEST];
static size_t request_size, upload;
static struct mark { size_t at, size; } marks[MARKS]; /* what differs in each request */
static int marked;
static unsigned long long serial;
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

/* TLS is spoken if the program was called so: the two functions below are send(2) and recv(2) with
 * or without it.  A handshake is done by the first send. */
#ifdef TLS
static SSL_CTX *context;

static ssize_t spoken(struct connection *c, int done)
{
    if (done > 0)
        return done;
    int problem = SSL_get_error(c->tls, done);
    if (problem == SSL_ERROR_ZERO_RETURN)
        return 0;
    c->wants = problem == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT;
    if (problem == SSL_ERROR_WANT_READ || problem == SSL_ERROR_WANT_WRITE)
        errno = EAGAIN;
    else if (problem != SSL_ERROR_SYSCALL || !errno)
        errno = ECONNRESET;
    return -1;
}

static void seal(struct connection *c)
{
    c->tls = SSL_new(context);
    if (!c->tls || !SSL_set_fd(c->tls, c->fd))
        fail("SSL_new");
    SSL_set_connect_state(c->tls);
}
#endif

static ssize_t give(struct connection *c, const char *from, size_t size, int flags)
{
    c->wants = EPOLLOUT;
#ifdef TLS
    errno = 0;
    if (context)
        return spoken(c, SSL_write(c->tls, from, size));
#endif
    return send(c->fd, from, size, flags);
}

static ssize_t take(struct connection *c, char *room, size_t size)
{
#ifdef TLS
    errno = 0;
    if (context)
        return spoken(c, SSL_read(c->tls, room, size));
#endif
    return recv(c->fd, room, size, 0);
}

static void drop(struct connection *c)
{
#ifdef TLS
    SSL_free(c->tls);
    c->tls = NULL;
#endif
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

/* Writes the number of this request into the marks.  Its digits are mixed, so that no two requests
 * begin alike. */
static void number(const struct connection *c)
{
    unsigned long long digits = c->serial * 0x9e3779b97f4a7c15ULL;
    for (int i = 0; i < marked; i++) {
        char *to = request + marks[i].at;
        for (size_t j = 0; j < marks[i].size; j++) {
            to[j] = "0123456789abcdef"[digits >> 60];
            digits = digits << 4 | digits >> 60;
        }
    }
}

/* Sends the request, as much as is taken now; 0 where there is more to send, -1 for an error. */
static int ask(struct connection *c)
{
    static char zeros[PIECE];
    number(c);
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
        ssize_t n = give(c, from, size, MSG_NOSIGNAL | more);
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
        c->serial = ++serial;
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
#ifdef TLS
            if (context)
                seal(c);
#endif
        }
        int sent = ask(c);
        if (sent < 0) {
            count(c, reason());
            drop(c);
            continue;
        }
        watch(c, sent ? EPOLLIN : EPOLLIN | c->wants);
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
        ssize_t n = take(c, room, c->headed ? PIECE : ROOM - c->have);
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
    if (!c->sent) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error || !(events & (c->wants | EPOLLOUT)))
            return end(c, CONNECT, 0);
    }
    if (events & c->wants && c->sent < request_size + upload) {
        int sent = ask(c);
        if (sent < 0)
            return end(c, reason(), 0);
        watch(c, sent ? EPOLLIN : EPOLLIN | c->wants);
        if (!c->sent)
            return;
    }
    if (events & ~EPOLLOUT)
        hear(c);
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
    fprintf(stderr, "usage: load [-p PATH] [-r REQUEST] [-s] [-t SECONDS] [-u BYTES] "
                    "keepalive|close HOST PORT CONNECTIONS REQUESTS BODY\n"
                    "       HOST an IPv4 address, CONNECTIONS 1 to 1000, REQUESTS 1 to 10000000,\n"
                    "       SECONDS up to 600, BODY may be @FILE, -s needs OpenSSL\n");
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

/* Finds the marks in the request. */
static int mark(void)
{
    for (size_t at = 0, size; at < request_size; at += size + 1) {
        at += strcspn(request + at, "#");
        size = strspn(request + at, "#");
        if (size < FEWEST)
            continue;
        if (marked == MARKS)
            return 0;
        marks[marked++] = (struct mark){at, size};
    }
    return 1;
}

static int speak_tls(void)
{
#ifdef TLS
    context = SSL_CTX_new(TLS_client_method());
    if (!context)
        fail("SSL_CTX_new");
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    signal(SIGPIPE, SIG_IGN);
    return 1;
#else
    return 0;
#endif
}

int main(int argc, char **argv)
{
    const char *path = "/", *given = NULL;
    double seconds = 0;
    for (int option; (option = getopt(argc, argv, "p:r:st:u:")) != -1;) {
        if (option == 'p')
            path = optarg;
        else if (option == 'r')
            given = optarg;
        else if (option == 's') {
            if (!speak_tls())
                return usage();
        }
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
    serial = now(); /* so that no two runs ask for the same */
    char length[64] = "";
    if (upload)
        snprintf(length, sizeof length, "Content-Length: %zu\r\n", upload);
    if (given)
        request_size = snprintf(request, sizeof request, "%s", given);
    else
        request_size = snprintf(request, sizeof request,
                                "%s %s HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: load\r\n"
                                "Accept: */*\r\n%s%s\r\n",
                            upload ? "POST" : "GET", path, argv[1], port, length,
                            one_shot ? "Connection: close\r\n" : "");
    if (request_size >= sizeof request || (given && upload) || !mark())
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
