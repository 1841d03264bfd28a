// What becomes of objects in a child process.
#pragma once

namespace llmd::python {

// How often this process's ancestors, itself included, were made by fork since the module was
// loaded: another number in a child than in its parent. Starts counting with the first call.
int ForkGeneration();

}  // namespace llmd::python
