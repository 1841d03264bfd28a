// A gRPC client for one kind of call over HTTP/2, made to cost little beside the server it
// measures: prebuilt messages are framed straight from their memory and arrive as views. It trusts
// its peer; response headers are not decoded, only the end of a stream is seen. Owned by one
// thread.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace llmd::perf {

// What happens on a connection's streams.
class H2Events {
 public:
  virtual ~H2Events() = default;
  // One whole gRPC message, without its prefix; the view holds during the call.
  virtual void OnMessage(void* user, std::string_view message) = 0;
  // The stream is over; false when it was reset.
  virtual void OnEnd(void* user, bool clean) = 0;
};

class H2Client {
 public:
  // Connects, blocking, to 127.0.0.1:port; exits the program when that fails.
  H2Client(int port, std::string path, H2Events& events);
  int fd() const { return fd_; }

  // Opens a stream and returns its number.
  uint32_t Open(void* user);
  // Sends bytes (gRPC prefixes included). They must stay as they are until the stream has ended.
  void Send(uint32_t stream, std::string_view framed, bool end = false);
  // Reads what there is and calls the events. False when the connection is lost.
  bool Read();
  // Writes what was queued. True when everything left, false when the socket is full.
  bool Flush();

 private:
  struct Stream {
    void* user = nullptr;
    int64_t window = 0;
    std::deque<std::string_view> waiting;
    bool end = false, end_sent = false;
    std::string partial;  // of a message that came in pieces, prefix included
  };
  void Frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload);
  void Pump(uint32_t id, Stream& stream);
  void PumpAll();
  size_t Take(std::string_view in);
  void OnFrame(uint8_t type, uint8_t flags, uint32_t id, std::string_view payload);
  void OnData(uint32_t id, std::string_view payload);
  void OnSettings(std::string_view payload);
  void OnWindow(uint32_t id, std::string_view payload);
  void End(uint32_t id, bool clean);

  const int fd_;
  const std::string path_;
  H2Events& events_;
  uint32_t next_ = 1;
  int64_t window_ = 65'535, initial_window_ = 65'535, received_ = 0;
  std::string out_, in_;
  size_t out_at_ = 0;
  bool first_ = true;  // the first call's headers fill the peer's table
  std::unordered_map<uint32_t, Stream> streams_;
};

}  // namespace llmd::perf
