// What a policy may do: decide later, collect, hold back, break off, keep time.
#include <future>

#include "fixture.h"

namespace llmd::relay::testing {
namespace {

using std::chrono::milliseconds;

// Runs what calls ask of it on a thread of its own.
class Elsewhere {
 public:
  ~Elsewhere() { Join(); }
  void Run(std::function<void()> fn) {
    const std::lock_guard lock(mutex_);
    threads_.emplace_back(std::move(fn));
  }
  void Join() {
    std::vector<std::thread> all;
    {
      const std::lock_guard lock(mutex_);
      all.swap(threads_);
    }
    for (std::thread& each : all) each.join();
  }

 private:
  std::mutex mutex_;
  std::vector<std::thread> threads_;
};

class Policies : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Loops, Policies, ::testing::Values(1, 4));

constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

TEST_P(Policies, MayDecideLater) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(kOk);
    ReadRequest(socket);
  });
  Elsewhere elsewhere;
  Hooks hooks;
  const Target target = Loopback(engine.port());
  hooks.on_request = [&](Call& call) {
    elsewhere.Run([ref = call.ref(), target] {
      std::this_thread::sleep_for(milliseconds(20));
      EXPECT_TRUE(ref.Post([target](Call& waiting) {
        SendOptions options;
        options.target = target;
        waiting.Send(options);
      }));
    });
  };
  hooks.on_response_head = [&](Call& call, const http::ResponseView& head) {
    EXPECT_EQ(head.status, 200);
    elsewhere.Run([ref = call.ref()] {
      std::this_thread::sleep_for(milliseconds(20));
      (void)ref.Post([](Call& waiting) {
        const std::array<HeaderEdit, 1> edits = {HeaderEdit{"x-late", "1"}};
        waiting.Forward(edits, BodyMode::kPass);
      });
    });
  };
  TestRelay relay(hooks, Loops(GetParam()));
  const std::string seen =
      relay.Ask("POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_EQ(BodyOf(seen), "ok");
  EXPECT_THAT(seen, ::testing::HasSubstr("x-late: 1"));
}

TEST_P(Policies, AHeadThatWaitsForForwardKeepsItsViews) {
  std::promise<void> go;
  ScriptedPeer engine(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 201 Made\r\nX-A: kept\r\nContent-Length: 4\r\n\r\nfi");
    go.get_future().wait();
    socket.Send("ve");
    ReadRequest(socket);
  });
  Hooks hooks = To(engine.port());
  const http::ResponseView* held = nullptr;
  hooks.on_response_head = [&](Call& call, const http::ResponseView& head) {
    held = &head;
    call.SetTimer(milliseconds(30));
  };
  hooks.on_timer = [&](Call& call) {
    EXPECT_EQ(held->headers.Get("x-a").value_or(""), "kept");
    EXPECT_EQ(held->reason, "Made");
    call.Forward({}, BodyMode::kPass);
    go.set_value();
  };
  TestRelay relay(hooks, Loops(GetParam()));
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "five");
}

TEST_P(Policies, AnAnswerWithoutABodyMayBePutOffToo) {
  ScriptedPeer engine(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 204 No Content\r\n\r\n");
    ReadRequest(socket);
  });
  Hooks hooks = To(engine.port());
  hooks.on_response_head = [](Call& call, const http::ResponseView&) {
    call.SetTimer(milliseconds(20));
  };
  hooks.on_timer = [](Call& call) { call.Forward({}, BodyMode::kPass); };
  TestRelay relay(hooks, Loops(GetParam()));
  EXPECT_THAT(relay.Ask(kGetClose), ::testing::StartsWith("HTTP/1.1 204"));
}

TEST_P(Policies, MayCollectALegAndSendAnother) {
  std::vector<std::string> legs;
  ScriptedPeer engine(2, [&](RawSocket& socket, int) {
    while (true) {
      const std::string request = ReadRequest(socket);
      if (request.empty()) return;
      legs.push_back(request);
      if (request.find("prefill") != std::string::npos) {
        socket.Send("HTTP/1.1 200 OK\r\nX-P: 1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nkv=7\r\n");
        std::this_thread::sleep_for(milliseconds(20));
        socket.Send("3\r\n;ok\r\n0\r\n\r\n");
      } else {
        socket.Send(kOk);
        return;
      }
    }
  });
  Hooks hooks;
  const Target target = Loopback(engine.port());
  std::string decode_body;
  hooks.on_request = [&](Call& call) {
    static constexpr std::array<std::string_view, 1> kBody = {"prefill"};
    SendOptions options;
    options.target = target;
    options.own_body = true;
    options.body = kBody;
    options.collect_bytes = 1000;
    call.Send(options);
  };
  hooks.on_collected = [&](Call& call, const http::ResponseView& head, std::string_view body) {
    EXPECT_EQ(head.headers.Get("X-P").value_or(""), "1");
    decode_body = std::string(call.body()) + "+" + std::string(body);
    const std::array<std::string_view, 1> parts = {decode_body};
    SendOptions options;
    options.target = target;
    options.own_body = true;
    options.body = parts;
    call.Send(options);
  };
  TestRelay relay(hooks, Loops(GetParam()));
  EXPECT_EQ(
      BodyOf(relay.Ask(
          "POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")),
      "ok");
  ASSERT_EQ(legs.size(), 2U);
  EXPECT_THAT(legs[1], ::testing::EndsWith("abc+kv=7;ok"));
}

TEST(Policy, ACollectedAnswerIsBounded) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + std::string(100, 'x'));
    ReadRequest(socket);
  });
  Hooks hooks = To(engine.port());
  hooks.options.collect_bytes = 99;
  TestRelay relay(hooks);
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "ours");
}

TEST(Policy, ACollectedAnswerThatEndsWithItsConnection) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\n\r\nall of it");
  });
  Hooks hooks = To(engine.port());
  hooks.options.collect_bytes = 99;
  hooks.on_collected = [](Call& call, const http::ResponseView&, std::string_view body) {
    call.Answer(200, {}, body);
  };
  TestRelay relay(hooks);
  EXPECT_EQ(BodyOf(relay.Ask(kGetClose)), "all of it");
}

TEST_P(Policies, MayHoldBytesBackAndReleaseThemChanged) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc");
    std::this_thread::sleep_for(milliseconds(20));
    socket.Send("def");
    ReadRequest(socket);
  });
  Elsewhere elsewhere;
  Hooks hooks = To(engine.port());
  hooks.mode = BodyMode::kEdit;
  std::promise<void> none;
  none.set_value();
  std::shared_future<void> before = none.get_future().share();
  hooks.on_bytes = [&](Call& call, std::string_view piece, bool end) {
    auto done = std::make_shared<std::promise<void>>();
    elsewhere.Run([ref = call.ref(), text = std::string(piece), end, before, done] {
      before.wait();
      std::this_thread::sleep_for(milliseconds(30));
      (void)ref.Post(
          [text, end](Call& holding) { holding.Release("[" + text + "]", text.size(), end); });
      done->set_value();
    });
    before = done->get_future().share();
    return Piece{{}, true};
  };
  TestRelay relay(hooks, Loops(GetParam()));
  const std::string seen = BodyOf(relay.Ask(kGetClose));
  elsewhere.Join();
  // Both pieces may have come as one.
  EXPECT_THAT(seen, ::testing::AnyOf("[abc][def]", "[abcdef]"));
}

TEST(Policy, WhatIsHeldBackIsBounded) {
  std::atomic<size_t> sent{0};
  ScriptedPeer engine(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n");
    const std::string piece(64'000, 'x');
    while (sent < 64'000'000 && socket.Send(piece)) sent += piece.size();
  });
  Hooks hooks = To(engine.port());
  hooks.mode = BodyMode::kEdit;
  std::atomic<size_t> held{0};
  hooks.on_bytes = [&](Call& call, std::string_view piece, bool) {
    held += piece.size();
    call.SetTimer(milliseconds(300));
    return Piece{{}, true};
  };
  hooks.on_timer = [](Call& call) { call.Abort(); };
  RelayOptions options;
  options.max_held_bytes = 200'000;
  TestRelay relay(hooks, options);
  const std::string seen = relay.Ask(kGet);
  EXPECT_LE(held, 200'000U + 64 * 1024);
  // Cut, never ended cleanly.
  EXPECT_THAT(seen, ::testing::Not(::testing::EndsWith("0\r\n\r\n")));
}

TEST(Policy, MayBreakAStreamOff) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    ReadRequest(socket);
    socket.Send(
        "HTTP/1.1 200 OK\r\nContent-Type: TEXT/Event-Stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        "9\r\ndata: 1\n\n\r\n");
    ReadRequest(socket);
  });
  Hooks hooks = To(engine.port());
  hooks.on_response_head = [](Call& call, const http::ResponseView&) {
    call.Forward({}, BodyMode::kPass);
    call.SetTimer(milliseconds(50));
  };
  hooks.on_timer = [](Call& call) { call.BreakOff("{\"error\":1}"); };
  TestRelay relay(hooks);
  EXPECT_EQ(BodyOf(relay.Ask(kGet)), "data: 1\n\ndata: {\"error\":1}\n\n");
}

TEST(Policy, MayAnswerInPlaceOfALegThatIsUnderWay) {
  std::promise<void> left;
  ScriptedPeer engine(1, [&](RawSocket& socket, int) {
    ReadRequest(socket);
    ReadRequest(socket);
    left.set_value();
  });
  Hooks hooks = To(engine.port());
  hooks.on_request = [&](Call& call) {
    SendOptions options;
    options.target = Loopback(engine.port());
    call.Send(options);
    call.SetTimer(milliseconds(50));
  };
  hooks.on_timer = [](Call& call) { call.Answer(429, {}, "taken back"); };
  TestRelay relay(hooks);
  EXPECT_THAT(relay.Ask(kGetClose), ::testing::StartsWith("HTTP/1.1 429"));
  EXPECT_EQ(left.get_future().wait_for(std::chrono::seconds(1)), std::future_status::ready);
}

TEST_P(Policies, RetainedViewsHoldUntilTheyAreLetGo) {
  Elsewhere elsewhere;
  Hooks hooks;
  std::promise<std::string> read;
  std::string_view body;
  hooks.on_request = [&](Call& call) { body = call.body(); };
  hooks.on_end = [&](Call& call) {
    call.Retain();
    elsewhere.Run([&, ref = call.ref()] {
      std::this_thread::sleep_for(milliseconds(100));
      (void)ref.Post([&](Call& over) {
        EXPECT_EQ(over.body(), body);
        std::string seen(over.request().target);
        seen.append(" ").append(body);
        over.LetGo();
        read.set_value(seen);
      });
    });
  };
  TestRelay relay(hooks, Loops(GetParam()));
  const std::string large(50'000, 'L');
  {
    RawSocket socket = relay.Connect();
    socket.Send("POST /kept HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\n" + large);
    std::this_thread::sleep_for(milliseconds(50));
  }
  EXPECT_EQ(read.get_future().get(), "/kept " + large);
  for (int i = 0; i < 200 && relay.relay->active_calls() > 0; ++i)
    std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(relay.relay->active_calls(), 0U);
}

TEST_P(Policies, APostToACallThatIsOverIsDropped) {
  Elsewhere elsewhere;
  Hooks hooks = EchoHooks();
  std::atomic<int> late{0};
  const auto echo = hooks.on_request;
  hooks.on_request = [&](Call& call) {
    elsewhere.Run([&, ref = call.ref()] {
      std::this_thread::sleep_for(milliseconds(30));
      (void)ref.Post([&](Call&) { ++late; });
    });
    echo(call);
  };
  TestRelay relay(hooks, Loops(GetParam()));
  RawSocket socket = relay.Connect();
  for (int i = 0; i < 10; ++i) {
    socket.Send(kGet);
    socket.ReadUntil("GET /x ");
  }
  elsewhere.Join();
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_EQ(late, 0);
}

TEST(Policy, MayAskOnItsOwn) {
  ScriptedPeer engine(1, [](RawSocket& socket, int) {
    EXPECT_THAT(ReadRequest(socket),
                ::testing::StartsWith("GET /health HTTP/1.1\r\nHost: 127.0.0.1:"));
    socket.Send(kOk);
    ReadRequest(socket);
  });
  Hooks hooks;
  std::promise<std::string> told;
  std::atomic<bool> asked{false};
  hooks.on_tick = [&](Loop& loop) {
    if (asked.exchange(true)) return;
    SendOptions options;
    options.target = Loopback(engine.port());
    options.path = "/health";
    options.own_headers = options.own_body = true;
    options.collect_bytes = 100;
    loop.Open().Send(options);
  };
  hooks.on_collected = [&](Call& call, const http::ResponseView&, std::string_view body) {
    told.set_value(std::string(body));
    call.Abort();
  };
  TestRelay relay(hooks);
  EXPECT_EQ(told.get_future().get(), "ok");
  EXPECT_EQ(relay.journal.WaitForEnds(1).size(), 1U);
  EXPECT_EQ(relay.relay->active_calls(), 0U);
}

TEST(Policy, PostsAreBoundedButForThoseToCalls) {
  RelayOptions options;
  options.max_posts = 10;
  Hooks hooks;
  std::promise<Call*> made;
  std::promise<void> go;
  hooks.on_request = [&](Call& call) {
    made.set_value(&call);
    go.get_future().wait();  // the loop is stuck
  };
  TestRelay relay(hooks, options);
  RawSocket socket = relay.Connect();
  socket.Send(kGetClose);
  Call& call = *made.get_future().get();
  const CallRef ref = call.ref();
  Loop& loop = call.loop();
  int taken = 0;
  for (int i = 0; i < 20; ++i) taken += loop.Post([] {}) ? 1 : 0;
  EXPECT_EQ(taken, 10);
  EXPECT_TRUE(ref.Post([](Call& waiting) { waiting.Answer(200, {}, "decided"); }));
  go.set_value();
  EXPECT_EQ(BodyOf(socket.ReadToEnd()), "decided");
  relay.relay->Stop(Duration::zero());
  EXPECT_FALSE(ref.Post([](Call&) {}));
}

}  // namespace
}  // namespace llmd::relay::testing
