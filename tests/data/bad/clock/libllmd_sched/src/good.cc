// steady_clock::now() in a comment, NewUuid() too.
const char* text = "std::chrono::system_clock::now() and rand()";
TimePoint now = clock.Now();
std::chrono::time_point<std::chrono::steady_clock, Duration> from_outside;
auto late = flow.time(&now);
uint64_t r = NextRandom(state);
int operand(int grand);
