/* The floor of scripts/bench.sh gateway: the least that a relay of HTTP/1.1 can do, in one thread
 * on epoll. It reads a request's head for its Content-Length and an answer's for its Content-Length
 * (or, without one, for the last chunk's bytes at the end of a read), takes an idle connection to
 * the next engine in turn, and copies bytes. No limits, no timeouts, no errors but closing: not for
 * use. floor_relay PORT ENGINE_PORT... */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { kMaxFds = 65536, kBuffer = 256 << 10, kTail = 5 };

struct Side {
  int peer;    /* the other side's descriptor while a request is under way, else -1 */
  int engine;  /* index of the engine; -1: a client */
  int in_body; /* the head of the message under way has passed */
  int by_tail; /* chunked: ends with "0\r\n\r\n" */
  long left;   /* of a body with a length */
  char tail[kTail];
  char* unsent; /* what the peer did not take at once; reading pauses meanwhile */
  size_t unsent_size, unsent_at;
};

static struct Side sides[kMaxFds];
static int idle[64][4096], idle_count[64];
static int engine_ports[64], engine_count, next_engine, epoll_fd;
static char buffer[kBuffer];

static void Watch(int fd, uint32_t what, int operation) {
  struct epoll_event event = {.events = what, .data.fd = fd};
  epoll_ctl(epoll_fd, operation, fd, &event);
}

static void NoDelay(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void Begin(int fd, int engine) {
  NoDelay(fd);
  memset(&sides[fd], 0, sizeof sides[fd]);
  sides[fd].peer = -1;
  sides[fd].engine = engine;
  Watch(fd, EPOLLIN, EPOLL_CTL_ADD);
}

static void Drop(int fd) {
  int peer = sides[fd].peer;
  struct Side* side = &sides[fd];
  if (side->engine >= 0 && peer < 0) { /* an idle one leaves its list */
    int* list = idle[side->engine];
    for (int i = 0; i < idle_count[side->engine]; ++i) {
      if (list[i] == fd) list[i] = list[--idle_count[side->engine]];
    }
  }
  free(side->unsent);
  side->unsent = NULL;
  side->peer = -1;
  close(fd);
  if (peer >= 0) {
    sides[peer].peer = -1;
    free(sides[peer].unsent);
    sides[peer].unsent = NULL;
    close(peer);
  }
}

static int TakeEngine(void) {
  int engine = next_engine++ % engine_count;
  if (idle_count[engine] > 0) return idle[engine][--idle_count[engine]];
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)engine_ports[engine]),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr*)&address, sizeof address) != 0) return -1;
  Begin(fd, engine);
  return fd;
}

/* Sends to the peer; keeps what it does not take and stops reading `from` until it has. */
static int Pass(int from, const char* data, size_t size) {
  int to = sides[from].peer;
  ssize_t n = send(to, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0 && errno != EAGAIN) return 0;
  size_t sent = n < 0 ? 0 : (size_t)n;
  if (sent == size) return 1;
  struct Side* side = &sides[from];
  side->unsent = malloc(size - sent);
  side->unsent_size = size - sent;
  side->unsent_at = 0;
  memcpy(side->unsent, data + sent, size - sent);
  Watch(from, 0, EPOLL_CTL_MOD);
  Watch(to, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
  return 1;
}

/* The head's length, 0 when it is not whole; sets how the body ends. */
static size_t ReadHead(struct Side* side, const char* data, size_t size) {
  const char* end = memmem(data, size, "\r\n\r\n", 4);
  if (end == NULL) return 0;
  side->left = 0;
  side->by_tail = side->engine >= 0;
  memset(side->tail, 0, kTail);
  const char* line = data;
  while (line < end) {
    line = (const char*)memmem(line, (size_t)(end + 2 - line), "\r\n", 2) + 2;
    if (strncasecmp(line, "content-length:", 15) == 0) {
      side->left = atol(line + 15);
      side->by_tail = 0;
    }
  }
  return (size_t)(end - data) + 4;
}

static int Ended(struct Side* side, const char* data, size_t size) {
  if (!side->by_tail) {
    side->left -= (long)size;
    return side->left <= 0;
  }
  size_t keep = size < kTail ? size : kTail;
  memmove(side->tail, side->tail + keep, kTail - keep);
  memcpy(side->tail + kTail - keep, data + size - keep, keep);
  return memcmp(side->tail, "0\r\n\r\n", kTail) == 0;
}

static void Release(int fd) { /* the answer has ended: the engine's connection is free again */
  struct Side* side = &sides[fd];
  if (idle_count[side->engine] < 4096) idle[side->engine][idle_count[side->engine]++] = fd;
  sides[side->peer].peer = -1;
  side->peer = -1;
}

static int Relay(int fd) {
  struct Side* side = &sides[fd];
  ssize_t n = recv(fd, buffer, kBuffer, MSG_DONTWAIT);
  if (n <= 0) return n < 0 && errno == EAGAIN;
  size_t head = 0;
  if (!side->in_body) {
    head = ReadHead(side, buffer, (size_t)n);
    if (head == 0) return 0; /* heads in two pieces do not occur in the benchmark */
    side->in_body = 1;
    if (side->engine < 0) {
      side->peer = TakeEngine();
      if (side->peer < 0) return 0;
      sides[side->peer].peer = fd;
    }
  }
  if (side->peer < 0) return 0;
  int ended = Ended(side, buffer + head, (size_t)n - head);
  if (!Pass(fd, buffer, (size_t)n)) return 0;
  if (ended) {
    side->in_body = 0;
    if (side->engine >= 0 && side->unsent == NULL) Release(fd);
  }
  return 1;
}

/* `fd` takes bytes again: those that its peer left. */
static int Flush(int fd) {
  int from = sides[fd].peer;
  if (from < 0 || sides[from].unsent == NULL) return 1;
  struct Side* side = &sides[from];
  ssize_t n = send(fd, side->unsent + side->unsent_at, side->unsent_size - side->unsent_at,
                   MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN;
  side->unsent_at += (size_t)n;
  if (side->unsent_at < side->unsent_size) return 1;
  free(side->unsent);
  side->unsent = NULL;
  Watch(from, EPOLLIN, EPOLL_CTL_MOD);
  Watch(fd, EPOLLIN, EPOLL_CTL_MOD);
  if (side->engine >= 0 && !side->in_body) Release(from);
  return 1;
}

static int Listen(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr*)&address, sizeof address) != 0 || listen(fd, 4096) != 0) {
    perror("floor_relay: listen");
    exit(1);
  }
  return fd;
}

int main(int argc, char** argv) {
  struct rlimit limit;
  signal(SIGPIPE, SIG_IGN);
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max < kMaxFds ? limit.rlim_max : kMaxFds;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (argc < 3 || argc > 66) {
    fprintf(stderr, "usage: floor_relay PORT ENGINE_PORT...\n");
    return 2;
  }
  epoll_fd = epoll_create1(0);
  int listener = Listen(atoi(argv[1]));
  for (engine_count = 0; engine_count < argc - 2; ++engine_count)
    engine_ports[engine_count] = atoi(argv[engine_count + 2]);
  Watch(listener, EPOLLIN, EPOLL_CTL_ADD);
  for (;;) {
    struct epoll_event events[512];
    int n = epoll_wait(epoll_fd, events, 512, -1);
    for (int i = 0; i < n; ++i) {
      int fd = events[i].data.fd;
      if (fd == listener) {
        for (int client; (client = accept4(listener, NULL, NULL, 0)) >= 0;) Begin(client, -1);
        continue;
      }
      int alive = 1;
      if (events[i].events & EPOLLOUT) alive = Flush(fd);
      if (alive && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) alive = Relay(fd);
      if (!alive) Drop(fd);
    }
  }
}
