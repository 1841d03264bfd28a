Task<void> A() {
  Response response{200, "{"};
  co_await Send(std::move(response));
  if (co_await Ready()) { Go(); }
  for (int i = 0; i < co_await Count(); ++i) { Use(table[i]); }
  int n = 1;
  co_await Run([&] { return n; });
  auto plain = []() -> Task<void> { co_return; };
}
