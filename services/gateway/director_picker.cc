#include <algorithm>

#include "common/body_edit.h"
#include "gateway/mailbox.h"
#include "gateway/picker.h"

namespace llmd::gateway {
namespace {

// What the Director works on while it decides; shared, because it may answer after the client has
// left.
struct Question {
  HeaderList headers;
  std::shared_ptr<const std::string> body;
  std::shared_ptr<sched::RequestState> state;
  // Loop thread only.
  std::optional<sched::Denial> evicted;
  std::function<void()> on_evicted;
};

class DirectorPick final : public Pick {
 public:
  DirectorPick(sched::Director& director, sched::Routing routing,
               std::shared_ptr<Question> question)
      : director_(director), routing_(std::move(routing)), question_(std::move(question)) {
    if (!routing_.body_edits.empty())
      edited_ = services::ApplyEdits(*question_->body, routing_.body_edits);
  }
  ~DirectorPick() override {
    if (!ended_ && routing_.state) director_.Cancel(routing_.state);
  }

  const sched::Routing& routing() const override { return routing_; }
  std::string_view body() const override {
    return routing_.body_edits.empty() ? std::string_view(*question_->body) : edited_;
  }

  void OnServed(std::string_view endpoint) override {
    director_.OnServed(routing_.state, endpoint);
  }
  http::Task<HeaderList> OnResponseHeaders(int status, const HeaderList& headers) override {
    co_return director_.OnResponseHeaders(routing_.state, status, headers);
  }
  http::Task<std::string_view> OnResponseBody(std::string_view chunk, bool end) override {
    ended_ |= end;
    co_return director_.OnResponseBody(routing_.state, chunk, end, &replaced_)
        ? std::string_view(replaced_)
        : chunk;
  }
  const sched::Denial* evicted() const override {
    return question_->evicted ? &*question_->evicted : nullptr;
  }
  void OnEvicted(std::function<void()> callback) override {
    question_->on_evicted = std::move(callback);
    if (question_->evicted && question_->on_evicted) question_->on_evicted();
  }

 private:
  sched::Director& director_;
  sched::Routing routing_;
  std::shared_ptr<Question> question_;
  std::string edited_, replaced_;
  bool ended_ = false;
};

class DirectorPicker final : public Picker {
 public:
  explicit DirectorPicker(sched::Director& director) : director_(director) {}

  http::Task<StatusOr<std::unique_ptr<Pick>>> Choose(http::Exchange& exchange,
                                                     PickInput input) override {
    auto question = std::make_shared<Question>();
    question->headers = std::move(input.headers);
    question->body = input.body;
    auto answer = std::make_shared<Mailbox<sched::Routing>>(exchange.loop());
    Ask(question, exchange.loop(), input,
        [question, answer](sched::Routing routing) { answer->Send(std::move(routing)); });
    exchange.OnClientGone([answer] { answer->Close(); });
    std::optional<sched::Routing> routing = co_await answer->Receive();
    exchange.OnClientGone(nullptr);
    if (!routing) {
      if (question->state) director_.Cancel(question->state);
      co_return Cancelled("the client left while its request waited");
    }
    std::unique_ptr<Pick> pick =
        std::make_unique<DirectorPick>(director_, std::move(*routing), std::move(question));
    co_return pick;
  }

  bool ready() const override { return director_.ready(); }
  StatusOr<std::string> Explain(std::string_view id) const override {
    return director_.Explain(id);
  }

 private:
  // Tells the loop thread; the request keeps this, so it must not keep the question.
  static std::function<void(const sched::Denial&)> Evicted(
      const std::shared_ptr<Question>& question, boost::asio::io_context& loop) {
    return [weak = std::weak_ptr<Question>(question), &loop](const sched::Denial& denial) {
      boost::asio::post(loop, [weak, denial] {
        const std::shared_ptr<Question> alive = weak.lock();
        if (!alive) return;
        alive->evicted = denial;
        if (alive->on_evicted) alive->on_evicted();
      });
    };
  }

  std::vector<std::string> Without(const PickInput& input) const {
    const auto contains = [](const std::vector<std::string>& list, const std::string& word) {
      return std::find(list.begin(), list.end(), word) != list.end();
    };
    std::vector<std::string> good, avoided;
    for (const sched::EndpointInfo& endpoint : director_.Endpoints()) {
      std::string address = endpoint.HostPort();
      if (contains(input.exclude, address)) continue;
      (contains(input.avoid, address) ? avoided : good).push_back(std::move(address));
    }
    return good.empty() ? avoided : good;
  }

  void Ask(const std::shared_ptr<Question>& question, boost::asio::io_context& loop,
           const PickInput& input, std::function<void(sched::Routing)> done) {
    sched::RequestInput request;
    request.headers = &question->headers;
    request.body = *question->body;
    request.has_body = input.has_body;
    request.state = &question->state;
    request.evicted = Evicted(question, loop);
    request.first_received = input.received;
    request.first_target = input.target_model;
    if (!input.exclude.empty() || !input.avoid.empty()) {
      request.has_subset = true;
      request.subset = Without(input);
    }
    director_.Route(std::move(request), std::move(done));
  }

  sched::Director& director_;
};

}  // namespace

std::unique_ptr<Picker> MakeDirectorPicker(sched::Director& director) {
  return std::make_unique<DirectorPicker>(director);
}

}  // namespace llmd::gateway
