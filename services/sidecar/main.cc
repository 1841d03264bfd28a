#include "sidecar/app.h"

int main(int argc, char** argv) {
  return llmd::sidecar::RunSidecar(argc, argv);
}
