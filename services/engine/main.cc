#include "engine/app.h"

int main(int argc, char** argv) {
  return llmd::services::RunEngine(argc, argv);
}
