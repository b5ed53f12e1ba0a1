/*
 * A relay that does as little as a relay can: one thread that sleeps in epoll_wait(2),
 * recv(2), send(2). `make bench` runs two of them in the agents' place, joined by a unix
 * socket, to show what of a round trip is the kernel's.
 *
 *	relay tcp PORT unix PATH	on the host
 *	relay unix PATH tcp PORT	in the guest
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ROOM = 256 << 10 };

/* One end of a connection, and what was read from it that its peer does not take yet. */
struct end {
	int fd;
	struct end *peer;
	char *held;
	size_t from, to;
	int ended; /* 1: it has sent its last, 2: and the peer was told */
	uint32_t events;
};

static int poller;
static struct end *dead; /* freed when the batch of events that may still name them is done */
static char buffer[ROOM];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static socklen_t address(const char *kind, const char *at, struct sockaddr_storage *a)
{
	memset(a, 0, sizeof *a);
	if (!strcmp(kind, "unix")) {
		struct sockaddr_un *un = (void *)a;
		un->sun_family = AF_UNIX;
		strncpy(un->sun_path, at, sizeof un->sun_path - 1);
		return sizeof *un;
	}
	struct sockaddr_in *in = (void *)a;
	in->sin_family = AF_INET;
	in->sin_port = htons(atoi(at));
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return sizeof *in;
}

static void want(struct end *e)
{
	struct end *p = e->peer;
	uint32_t events = (e->to || e->ended ? 0 : EPOLLIN) | (p->to ? EPOLLOUT : 0);
	struct epoll_event ev = { .events = events, .data.ptr = e };
	if (events != e->events)
		epoll_ctl(poller, EPOLL_CTL_MOD, e->fd, &ev);
	e->events = events;
}

static void finish(struct end *e)
{
	struct end *both[] = { e, e->peer };
	for (int i = 0; i < 2; i++) {
		close(both[i]->fd);
		free(both[i]->held);
		both[i]->fd = -1;
	}
	struct end *pair = e < e->peer ? e : e->peer; /* as join allocated them */
	pair[1].peer = dead;
	dead = pair;
}

/* push sends what is held of e to its peer; -1 if the connection is over. */
static int push(struct end *e)
{
	while (e->from < e->to) {
		ssize_t n = send(e->peer->fd, e->held + e->from, e->to - e->from, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN ? 0 : -1;
		e->from += n;
	}
	e->from = e->to = 0;
	free(e->held);
	e->held = NULL;
	if (e->ended == 1) {
		shutdown(e->peer->fd, SHUT_WR);
		e->ended = 2;
	}
	return e->ended == 2 && e->peer->ended == 2 ? -1 : 0;
}

static int pull(struct end *e)
{
	ssize_t n = recv(e->fd, buffer, sizeof buffer, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	if (n == 0) {
		e->ended = 1;
		return push(e);
	}
	ssize_t sent = send(e->peer->fd, buffer, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0) {
		if (errno != EAGAIN)
			return -1;
		sent = 0;
	}
	if (sent < n) {
		if (!(e->held = malloc(n - sent)))
			die("malloc");
		memcpy(e->held, buffer + sent, n - sent);
		e->to = n - sent;
	}
	return 0;
}

static void serve(struct end *e, uint32_t events)
{
	if (e->fd < 0)
		return;
	if ((events & EPOLLOUT && e->peer->to && push(e->peer)) ||
	    (events & EPOLLIN && !e->to && !e->ended && pull(e)) ||
	    (events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN))) {
		finish(e);
		return;
	}
	want(e);
	want(e->peer);
}

static void join(int a, const char *kind, const char *at)
{
	struct sockaddr_storage to;
	socklen_t len = address(kind, at, &to);
	int b = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
	if (b < 0 || connect(b, (void *)&to, len)) {
		close(a);
		close(b);
		return;
	}
	struct end *ends = calloc(2, sizeof *ends);
	if (!ends)
		die("calloc");
	ends[0].fd = a;
	ends[1].fd = b;
	for (int i = 0; i < 2; i++) {
		setsockopt(ends[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on a unix socket */
		ends[i].peer = &ends[1 - i];
		ends[i].events = EPOLLIN;
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &ends[i] };
		if (epoll_ctl(poller, EPOLL_CTL_ADD, ends[i].fd, &ev))
			die("epoll_ctl");
	}
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "usage: relay tcp|unix WHERE tcp|unix WHERE\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	struct sockaddr_storage at;
	socklen_t len = address(argv[1], argv[2], &at);
	int listener = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (at.ss_family == AF_UNIX)
		unlink(argv[2]);
	if (bind(listener, (void *)&at, len) || listen(listener, 1024))
		die("listen");
	poller = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event ev = { .events = EPOLLIN }, events[64];
	epoll_ctl(poller, EPOLL_CTL_ADD, listener, &ev);
	for (;;) {
		int n = epoll_wait(poller, events, 64, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr) {
				serve(events[i].data.ptr, events[i].events);
				continue;
			}
			int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			if (fd >= 0)
				join(fd, argv[3], argv[4]);
		}
		while (dead) {
			struct end *next = dead[1].peer;
			free(dead);
			dead = next;
		}
	}
}
