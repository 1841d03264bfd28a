// The server's side of one request on a connection: body limits and deadlines, and the framing of
// the answer. Lives in the connection's coroutine; loop thread only.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "http/connection.h"
#include "http/parser.h"
#include "http/writer.h"
#include "llmd/http/server.h"

namespace llmd::http {

class ServerExchange final : public Exchange {
 public:
  // `draining` and `options` outlive the exchange.
  ServerExchange(std::shared_ptr<Connection> connection, const ServerOptions& options,
                 const std::atomic<bool>& draining, ParsedRequest request, const std::string& peer,
                 boost::asio::io_context& loop);

  const RequestHead& request() const override { return request_.head; }
  const std::string& peer() const override { return peer_; }
  Task<StatusOr<std::string_view>> ReadBody() override;
  Task<StatusOr<std::string>> ReadAll() override;
  Task<Status> Send(Response response) override;
  Task<Status> Start(ResponseHead head) override;
  Task<Status> Write(std::string_view bytes) override;
  Task<Status> Finish() override;
  void Abort() override;
  bool started() const override { return phase_ != Phase::kReading; }
  void OnClientGone(std::function<void()> callback) override;
  bool client_gone() const override { return connection_->ended() || connection_->closed(); }
  boost::asio::io_context& loop() override { return loop_; }

  // After the handler: answers what it left unanswered, cuts what it left unfinished.
  Task<void> Complete();
  bool keep_alive() const { return keep_alive_; }

 private:
  enum class Phase { kReading, kStreaming, kDone, kAborted };
  using Body = ResponseFraming::Body;

  Status FailBody(Status status);
  Status CountPiece(std::string_view piece);
  Task<Status> ReadMoreBody();
  void SettleBody();
  ResponseFraming Frame(const ResponseHead& head, Body body, uint64_t length);
  bool BodylessAnswer(int status) const;
  Task<Status> WriteParts(std::string_view a, std::string_view b, std::string_view c,
                          Connection::WriteUntil until);

  const std::shared_ptr<Connection> connection_;
  const ServerOptions& options_;
  const std::atomic<bool>& draining_;
  ParsedRequest request_;
  const std::string& peer_;
  boost::asio::io_context& loop_;

  BodyDecoder decoder_;
  size_t held_bytes_ = 0;  // of the piece handed out last
  uint64_t body_bytes_ = 0;
  bool body_done_ = false, continued_ = false;
  Status body_error_;

  Phase phase_ = Phase::kReading;
  bool keep_alive_;
  Body answer_body_ = Body::kNone;
  bool bodyless_ = false;
  uint64_t answer_left_ = 0;
  std::string pending_head_;
};

}  // namespace llmd::http
