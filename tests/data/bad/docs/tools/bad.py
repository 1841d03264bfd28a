# tools cite docs/nowhere.md and issue 7
S1 = "no comment"
# fine: run --decisions 500 on $src/docs/guide.md
