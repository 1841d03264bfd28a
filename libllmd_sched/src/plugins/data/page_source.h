// Sources that read one page of each endpoint over HTTP: their parameters and their class.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "llmd/sched/plugin.h"
#include "llmd/sched/source.h"

namespace llmd::sched {

// scheme, path, port, interval, insecureSkipVerify, caCertPath, clientCertPath and clientKeyPath of
// `params`, with the defaults of `page`; errors go to `params`.
PageSpec ReadPage(Params& params, const PluginEnv& env, PageSpec page);
// A source of that page.
std::unique_ptr<Plugin> MakePageSource(PageSpec page);
// What ReadPage reads, for the descriptor.
std::vector<ParamHelp> PageParams(const PageSpec& page, const std::string& interval);

}  // namespace llmd::sched
