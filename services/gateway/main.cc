#include "gateway/app.h"

int main(int argc, char** argv) {
  return llmd::gateway::RunGateway(argc, argv);
}
