#include "gateway/page_for_clients.h"

#include <gtest/gtest.h>

namespace llmd::gateway {
namespace {

TEST(PageForClients, AddsUpWhatDiffersByItsEngineAlone) {
  EXPECT_EQ(PageForClients("# HELP a_total x\n"
                           "# TYPE a_total counter\n"
                           "a_total{endpoint=\"ns/e1\",route=\"/r\",status=\"200\"} 2.0\n"
                           "a_total{endpoint=\"ns/e\\\"2\",route=\"/r\",status=\"200\"} 3.0\n"
                           "a_total{endpoint=\"ns/e1\",route=\"/r\",status=\"404\"} 1.0\n"
                           "a_total{status=\"500\"} 7.0\n"),
            "# HELP a_total x\n"
            "# TYPE a_total counter\n"
            "a_total{route=\"/r\",status=\"200\"} 5.0\n"
            "a_total{route=\"/r\",status=\"404\"} 1.0\n"
            "a_total{status=\"500\"} 7.0\n");
}

TEST(PageForClients, AddsHistogramsUpByBucket) {
  EXPECT_EQ(PageForClients("# TYPE h histogram\n"
                           "h_bucket{endpoint=\"a\",le=\"1.0\"} 1.0\n"
                           "h_bucket{endpoint=\"a\",le=\"+Inf\"} 2.0\n"
                           "h_count{endpoint=\"a\"} 2.0\n"
                           "h_bucket{endpoint=\"b\",le=\"1.0\"} 3.0\n"
                           "h_bucket{endpoint=\"b\",le=\"+Inf\"} 3.0\n"
                           "h_count{endpoint=\"b\"} 3.0\n"),
            "# TYPE h histogram\n"
            "h_bucket{le=\"1.0\"} 4.0\n"
            "h_bucket{le=\"+Inf\"} 5.0\n"
            "h_count 5.0\n");
}

TEST(PageForClients, LeavesOutGaugesOfSingleEnginesAndKeepsTheRestAsItIs) {
  EXPECT_EQ(PageForClients("# TYPE g gauge\n"
                           "g{name=\"p\",model_server_endpoint=\"e\"} 4.0\n"
                           "g{name=\"p\"} 1e-05\n"
                           "# TYPE up gauge\n"
                           "up 1.0\n"),
            "# TYPE g gauge\n"
            "g{name=\"p\"} 1e-05\n"
            "# TYPE up gauge\n"
            "up 1.0\n");
}

}  // namespace
}  // namespace llmd::gateway
