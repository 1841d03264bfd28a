// The one third-party type in llmd's public headers: a coroutine that runs on a loop thread.
#pragma once

#include <boost/asio/awaitable.hpp>

namespace llmd::http {

template <typename T = void>
using Task = boost::asio::awaitable<T>;

}  // namespace llmd::http
