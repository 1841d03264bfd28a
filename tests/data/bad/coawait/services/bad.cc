Task<void> A() { co_await Send(Response{200, "x"}); }
Task<void> B(int n) { co_await Run([n] { return n; }); }
Task<void> C() { co_await Send({1, 2}); }
auto D(int n) { return [n]() -> Task<void> { co_await Sleep(n); }; }
