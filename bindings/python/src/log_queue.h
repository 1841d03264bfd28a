// Lines of the library on their way to Python's logging. They are queued where they are written,
// which may be any thread, and given to Python by the next call that holds the GIL: the library
// never waits for it.
#pragma once

#include "llmd/log.h"

namespace llmd::python {

// Writes at the level that the Python logger "llmd" has at this moment. With the GIL held.
Logger PythonLogger();
// Gives what is queued to llmd._logging.emit; cheap when there is nothing. Of more than 1,000 lines
// that wait the newest are dropped and counted. With the GIL held; leaves no Python error behind.
void DeliverLogs();

}  // namespace llmd::python
