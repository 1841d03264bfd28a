#include "epp/h2_client.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace llmd::perf {
namespace {

enum FrameType : uint8_t {
  kData = 0,
  kHeaders = 1,
  kReset = 3,
  kSettings = 4,
  kPing = 6,
  kGoAway = 7,
  kWindow = 8
};
constexpr uint8_t kEndStream = 1, kAck = 1, kEndHeaders = 4;
constexpr size_t kFrameHead = 9, kMaxFrame = 16'384;
constexpr int64_t kOurWindow = 0x7fffffff;

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    std::perror("connect");
    std::exit(1);
  }
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

std::string Big32(uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
          static_cast<char>(v)};
}

uint32_t Read32(std::string_view at) {
  uint32_t v = 0;
  std::memcpy(&v, at.data(), 4);
  return ntohl(v);
}

void AppendText(std::string& out, std::string_view text) {
  out += static_cast<char>(text.size());  // below 127, no Huffman
  out += text;
}

}  // namespace

H2Client::H2Client(int port, std::string path, H2Events& events)
    : fd_(Connect(port)), path_(std::move(path)), events_(events) {
  out_ = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  std::string settings = std::string("\0\4", 2) + Big32(kOurWindow);  // INITIAL_WINDOW_SIZE
  Frame(kSettings, 0, 0, settings);
  Frame(kWindow, 0, 0, Big32(kOurWindow - 65'535));
}

void H2Client::Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  const auto size = static_cast<uint32_t>(payload.size());
  const char head[5] = {static_cast<char>(size >> 16), static_cast<char>(size >> 8),
                        static_cast<char>(size), static_cast<char>(type), static_cast<char>(flags)};
  out_.append(head, sizeof head).append(Big32(stream)).append(payload);
}

uint32_t H2Client::Open(void* user) {
  const uint32_t id = next_;
  next_ += 2;
  Stream& stream = streams_[id];
  stream.user = user;
  stream.window = initial_window_;
  std::string block = "\x83\x86";  // :method POST, :scheme http
  if (std::exchange(first_, false)) {
    for (const auto& [name, value] : {std::pair<std::string_view, std::string_view>{":path", path_},
                                      {":authority", "epp"},
                                      {"content-type", "application/grpc"},
                                      {"te", "trailers"}}) {
      block += '\x40';  // literal, kept in the table
      AppendText(block, name);
      AppendText(block, value);
    }
  } else {
    block += "\xc1\xc0\xbf\xbe";  // the four, oldest first
  }
  Frame(kHeaders, kEndHeaders, id, block);
  return id;
}

void H2Client::Send(uint32_t id, std::string_view framed, bool end) {
  const auto it = streams_.find(id);
  if (it == streams_.end()) return;
  if (!framed.empty()) it->second.waiting.push_back(framed);
  it->second.end |= end;
  Pump(id, it->second);
}

void H2Client::Pump(uint32_t id, Stream& stream) {
  while (!stream.waiting.empty()) {
    std::string_view& next = stream.waiting.front();
    const auto room = static_cast<size_t>(std::max<int64_t>(0, std::min(window_, stream.window)));
    const size_t n = std::min({next.size(), room, kMaxFrame});
    if (n == 0) return;
    window_ -= static_cast<int64_t>(n);
    stream.window -= static_cast<int64_t>(n);
    const bool last = stream.end && n == next.size() && stream.waiting.size() == 1;
    stream.end_sent |= last;
    Frame(kData, last ? kEndStream : 0, id, next.substr(0, n));
    next.remove_prefix(n);
    if (next.empty()) stream.waiting.pop_front();
  }
  if (stream.end && !std::exchange(stream.end_sent, true)) Frame(kData, kEndStream, id, {});
}

void H2Client::PumpAll() {
  for (auto& [id, stream] : streams_) {
    if (window_ <= 0) return;
    if (!stream.waiting.empty()) Pump(id, stream);
  }
}

bool H2Client::Flush() {
  while (out_at_ < out_.size()) {
    const ssize_t n =
        send(fd_, out_.data() + out_at_, out_.size() - out_at_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno != EAGAIN;
    out_at_ += static_cast<size_t>(n);
  }
  out_.clear();
  out_at_ = 0;
  return true;
}

bool H2Client::Read() {
  static thread_local std::vector<char> buffer(1 << 20);
  const ssize_t n = recv(fd_, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR);
  std::string_view fresh(buffer.data(), static_cast<size_t>(n));
  if (in_.empty()) {
    fresh.remove_prefix(Take(fresh));
    in_ = fresh;
  } else {
    in_ += fresh;
    in_.erase(0, Take(in_));
  }
  return true;
}

// Handles the whole frames at the front; returns their size.
size_t H2Client::Take(std::string_view in) {
  const size_t all = in.size();
  while (in.size() >= kFrameHead) {
    const size_t size = Read32(in) >> 8;
    if (in.size() < kFrameHead + size) break;
    OnFrame(static_cast<uint8_t>(in[3]), static_cast<uint8_t>(in[4]),
            Read32(in.substr(5)) & 0x7fffffff, in.substr(kFrameHead, size));
    in.remove_prefix(kFrameHead + size);
  }
  return all - in.size();
}

void H2Client::OnFrame(uint8_t type, uint8_t flags, uint32_t id, std::string_view payload) {
  switch (type) {
    case kData:
      OnData(id, payload);
      if (flags & kEndStream) End(id, true);
      break;
    case kHeaders:
      if (flags & kEndStream) End(id, true);
      break;
    case kReset:
      End(id, false);
      break;
    case kSettings:
      if (flags & kAck) break;
      OnSettings(payload);
      Frame(kSettings, kAck, 0, {});
      break;
    case kPing:
      if (!(flags & kAck)) Frame(kPing, kAck, 0, payload);
      break;
    case kWindow:
      OnWindow(id, payload);
      break;
    default:
      break;
  }
}

void H2Client::OnData(uint32_t id, std::string_view payload) {
  received_ += static_cast<int64_t>(payload.size());
  if (received_ > kOurWindow / 4) {
    Frame(kWindow, 0, 0, Big32(static_cast<uint32_t>(std::exchange(received_, 0))));
  }
  const auto it = streams_.find(id);
  if (it == streams_.end()) return;
  Stream& stream = it->second;
  void* const user = stream.user;
  const bool joined = !stream.partial.empty();
  if (joined) stream.partial += payload;
  std::string whole = joined ? std::move(stream.partial) : std::string();
  std::string_view in = joined ? std::string_view(whole) : payload;
  while (in.size() >= 5 && in.size() >= 5 + size_t{Read32(in.substr(1))}) {
    const size_t size = Read32(in.substr(1));
    events_.OnMessage(user, in.substr(5, size));
    in.remove_prefix(5 + size);
  }
  // The call may have sent on this stream; it cannot have ended it.
  Stream& still = streams_[id];
  if (joined && in.size() == whole.size()) {
    still.partial = std::move(whole);
  } else {
    still.partial = in;
  }
}

void H2Client::OnSettings(std::string_view payload) {
  for (; payload.size() >= 6; payload.remove_prefix(6)) {
    if (payload[0] != 0 || payload[1] != 4) continue;
    const int64_t value = Read32(payload.substr(2));
    for (auto& [id, stream] : streams_) stream.window += value - initial_window_;
    initial_window_ = value;
  }
  PumpAll();
}

void H2Client::OnWindow(uint32_t id, std::string_view payload) {
  const int64_t more = Read32(payload) & 0x7fffffff;
  if (id == 0) {
    window_ += more;
    return PumpAll();
  }
  const auto it = streams_.find(id);
  if (it == streams_.end()) return;
  it->second.window += more;
  Pump(id, it->second);
}

void H2Client::End(uint32_t id, bool clean) {
  const auto it = streams_.find(id);
  if (it == streams_.end()) return;
  void* const user = it->second.user;
  streams_.erase(it);
  events_.OnEnd(user, clean);
}

}  // namespace llmd::perf
