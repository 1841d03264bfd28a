// From flags and files to the gateway's doors, and who stands behind them.
#pragma once

#include <memory>

#include "common/picker_flags.h"
#include "common/pools.h"
#include "gateway/doors/door_flags.h"
#include "gateway/doors/doors.h"
#include "gateway/model_reader.h"

namespace llmd::gateway {

// `with_picker`: the scheduler is another process (--epp), whose endpoints files are not read here
// and whose requests have no priority but their objective's. `metrics` outlives the doors.
StatusOr<std::unique_ptr<doors::Doors>> OpenDoors(const doors::DoorFlags& flags,
                                                  const services::PickerFlags& picker,
                                                  bool with_picker, const Logger& logger,
                                                  MetricsRegistry& metrics);

// The engines of all pools, at present.
EngineList EnginesOf(const services::Pools& pools);

}  // namespace llmd::gateway
