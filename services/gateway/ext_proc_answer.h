// The body of an engine's answer on its way through the picker. Each piece is sent to the picker
// and a copy kept until the picker has said what becomes of it: unchanged ones (the usual case) are
// then passed on from here. Pickers that give the bytes back themselves, at once or all at the end,
// are understood too; with one that keeps an answer to itself, the copies are given up, and what
// waits for the picker bounds what is read. Loop thread.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <deque>
#include <string>
#include <string_view>

#include "gateway/ext_proc_wire.h"
#include "llmd/http/relay/call.h"

namespace llmd::gateway {

class AnswerPipe {
 public:
  void Reset();

  // The message for a piece. `end` with the last one.
  grpc::ByteBuffer Take(std::string_view piece, bool end);
  // False when it answers nothing that was sent. What it says is sent by Flush.
  bool OnAnswer(const PickerAnswer& answer);
  // Sends what the answers since the last time have released.
  void Flush(relay::Call& call);

  // Bytes that have been sent and not been answered, as far as copies are kept.
  size_t held_bytes() const { return held_bytes_; }
  // Something was sent that the picker has to answer before long: a piece, unless it keeps the
  // answer to itself; in any case the last.
  bool owes() const { return !ended_ && (sent_end_ || (!keeps_ && !held_.empty())); }
  bool sent_end() const { return sent_end_; }
  bool ended() const { return ended_; }  // all of it has been released
  // Nothing has been flushed, and what is to be is just what was taken, so many bytes.
  bool unchanged(size_t bytes) const { return ended_ && exact_ && out_.size() == bytes; }
  bool keeps() const { return keeps_; }

  // The picker keeps the answer to itself: gives the copies up, and has them settled.
  void GiveUpCopies();
  // The picker is gone. True when all that it has given back so far is what it was sent, so that
  // the rest is known: it is released, and what follows may pass as it is. False: nothing is
  // changed. Before any answer it depends on `trust`.
  bool GoOnAlone(bool trust);

 private:
  struct Held {
    grpc::Slice bytes;
    size_t done = 0;  // bytes at its start that the picker has given back
    bool end = false;
    std::string_view rest() const {
      return {reinterpret_cast<const char*>(bytes.begin()) + done, bytes.size() - done};
    }
  };
  void PassFront();
  void ReplaceFront(std::string_view body);
  void TakeStreamed(std::string_view body, bool end);
  bool Matches(std::string_view body) const;
  void Settle(size_t bytes);
  void PopFront();

  std::deque<Held> held_;
  size_t held_bytes_ = 0;
  std::string out_;    // to be released
  size_t covers_ = 0;  // what that settles
  bool last_ = false;  // and whether it ends the answer
  bool sent_end_ = false, ended_ = false;
  bool exact_ = true, answered_ = false, keeps_ = false;
};

}  // namespace llmd::gateway
