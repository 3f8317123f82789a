/* accept_loop: the limit.  The least that a server on sockets can do, in C, with no safety at all.
 *
 *     accept_loop keepalive|close PORT
 *
 * close: accept4, recv, send, close, one connection after the other.
 * keepalive: the same answer from an epoll(7), connections stay open.
 *
 * It parses nothing: a request is what one recv() brought, and has to end in a blank line.  The
 * listener has the options that prefork sets (TCP_NODELAY, TCP_DEFER_ACCEPT: tcp(7)), so that what
 * differs is the work done for a request, not how the kernel was asked to deliver it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 64 };

#define ANSWER(connection)                                                                         \
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n" connection             \
    "\r\nhello world\n"

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int listening(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("bind");
    if (listen(fd, SOMAXCONN) < 0)
        fail("listen");
    return fd;
}

/* Answers one request; 0 where the connection is to be closed. */
static int answer(int fd, const char *text, size_t size)
{
    char request[4096];
    ssize_t n = recv(fd, request, sizeof request, 0);
    if (n < 4 || memcmp(request + n - 4, "\r\n\r\n", 4))
        return 0;
    return send(fd, text, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static int accepted(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 && errno != EINTR && errno != ECONNABORTED)
        fail("accept4");
    return fd;
}

static void one_by_one(int listener)
{
    static const char text[] = ANSWER("Connection: close\r\n");
    for (;;) {
        int fd = accepted(listener);
        if (fd < 0)
            continue;
        answer(fd, text, sizeof text - 1);
        close(fd);
    }
}

static void add(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl");
}

static void kept_alive(int listener)
{
    static const char text[] = ANSWER("");
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("epoll_create1");
    add(epoll, listener);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                if ((fd = accepted(listener)) >= 0)
                    add(epoll, fd);
            } else if (!answer(fd, text, sizeof text - 1)) {
                close(fd);
            }
        }
    }
}

int main(int argc, char **argv)
{
    int port = argc == 3 ? atoi(argv[2]) : 0;
    if (port < 1 || port > 65535 || (strcmp(argv[1], "keepalive") && strcmp(argv[1], "close"))) {
        fprintf(stderr, "usage: accept_loop keepalive|close PORT\n");
        return 2;
    }
    if (strcmp(argv[1], "close"))
        kept_alive(listening(port));
    else
        one_by_one(listening(port));
}
