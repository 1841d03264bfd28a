#include "epp/app.h"

int main(int argc, char** argv) {
  return llmd::epp::RunEpp(argc, argv);
}
