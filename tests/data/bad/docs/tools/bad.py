# tools cite docs/nowhere.md and issue 7
S1 = "no comment"
