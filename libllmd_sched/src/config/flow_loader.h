// The flowControl section of an EndpointPickerConfig.
#pragma once

#include "config/graph_builder.h"

namespace llmd::sched {

void ReadFlowControl(GraphBuilder& builder, const config::Node& root);

}  // namespace llmd::sched
