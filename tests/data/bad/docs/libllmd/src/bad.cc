// Formula: endpoint-picker.md, over all candidates.
// Good: docs/reference/scorers.md, guide.md, docs/reference/scorers.md,
// "Ties, and what breaks them" and RFC 9110 §7.6.1.
// Bad: docs/reference/scorers.md, "Weights".
// Rule: §2.2.
int P2 = 1;  // see requirement 12
const char* text = "S1 of a list";
