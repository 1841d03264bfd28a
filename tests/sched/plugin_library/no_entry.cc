int llmd_something_else() {
  return 1;
}
