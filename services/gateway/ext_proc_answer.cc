#include "gateway/ext_proc_answer.h"

#include <algorithm>
#include <utility>

namespace llmd::gateway {

using Change = PickerAnswer::Change;

void AnswerPipe::Reset() {
  held_.clear();
  out_.clear();
  held_bytes_ = covers_ = 0;
  last_ = sent_end_ = ended_ = answered_ = keeps_ = false;
  exact_ = true;
}

grpc::ByteBuffer AnswerPipe::Take(std::string_view piece, bool end) {
  static thread_local services::WireWriter writer;
  writer.Reset();
  WriteResponsePiece(piece.size(), end, writer);
  grpc::Slice slices[2] = {grpc::Slice(writer.View().data(), writer.View().size()),
                           grpc::Slice(piece.data(), piece.size())};
  sent_end_ |= end;
  if (!keeps_) {
    held_bytes_ += piece.size();
    held_.push_back({slices[1], 0, end});
  }
  return grpc::ByteBuffer(slices, piece.empty() ? 1 : 2);
}

void AnswerPipe::PopFront() {
  if (held_.front().end) ended_ = last_ = true;
  held_.pop_front();
}

void AnswerPipe::Settle(size_t bytes) {
  covers_ += bytes;
  held_bytes_ -= bytes;
}

void AnswerPipe::PassFront() {
  const std::string_view rest = held_.front().rest();
  out_.append(rest);
  Settle(rest.size());
  PopFront();
}

void AnswerPipe::ReplaceFront(std::string_view body) {
  const std::string_view rest = held_.front().rest();
  exact_ = exact_ && body == rest;
  out_.append(body);
  Settle(rest.size());
  PopFront();
}

bool AnswerPipe::Matches(std::string_view body) const {
  for (auto held = held_.begin(); !body.empty(); ++held) {
    if (held == held_.end()) return false;
    const std::string_view part = held->rest().substr(0, body.size());
    if (body.substr(0, part.size()) != part) return false;
    body.remove_prefix(part.size());
  }
  return true;
}

// Bytes of a picker's own, in pieces of its own choice. While they are ours they settle what they
// are; later, at least the piece that they begin in.
void AnswerPipe::TakeStreamed(std::string_view body, bool end) {
  exact_ = exact_ && !keeps_ && Matches(body);
  out_.append(body);
  size_t left = body.size();
  while (!held_.empty() && (left > 0 || end)) {
    Held& front = held_.front();
    const size_t taken = exact_ && !end ? std::min(left, front.rest().size()) : front.rest().size();
    front.done += taken;
    Settle(taken);
    left -= std::min(left, taken);
    if (!front.rest().empty()) break;
    if (front.end && !end) break;  // its end is still to come
    held_.pop_front();
  }
  if (end) ended_ = last_ = true;
}

bool AnswerPipe::OnAnswer(const PickerAnswer& answer) {
  if (ended_) return true;  // some pickers say more than is asked
  if (answer.change == Change::kStreamed) {
    TakeStreamed(answer.body, answer.end_of_stream);
    answered_ = true;
    return true;
  }
  if (held_.empty()) return false;
  if (answer.change == Change::kReplaced) {
    ReplaceFront(answer.body);
  } else {
    PassFront();
  }
  answered_ = true;
  return true;
}

void AnswerPipe::Flush(relay::Call& call) {
  if (out_.empty() && covers_ == 0 && !last_) return;
  static thread_local std::string bytes;  // the call, and this with it, may end within Release
  bytes.clear();
  bytes.swap(out_);
  const bool last = std::exchange(last_, false);
  call.Release(bytes, std::exchange(covers_, 0), last);
}

void AnswerPipe::GiveUpCopies() {
  keeps_ = true;
  covers_ += held_bytes_;
  held_bytes_ = 0;
  held_.clear();
}

bool AnswerPipe::GoOnAlone(bool trust) {
  if (!exact_ || keeps_ || !(answered_ || trust)) return false;
  while (!held_.empty()) PassFront();
  return true;
}

}  // namespace llmd::gateway
