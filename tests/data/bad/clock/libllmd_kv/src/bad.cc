auto a = std::chrono::steady_clock::now();
