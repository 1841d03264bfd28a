# The fuzz targets, each one source file beside this one and a folder of corpus/.
set(LLMD_FUZZ_TARGETS chat_template ext_proc_wire gguf http_message json kv_wire openai pd_body prom_text sched_body scraped_page sse stop_matcher yaml)
set(LLMD_FUZZ_LINK llmd::core llmd::text llmd::pd llmd::kv llmd::kv_transfer)
# Parsers inside libraries that are large to build: only their own sources are taken.
set(LLMD_FUZZ_http_message_SOURCES libllmd/src/http/parser.cc libllmd/src/http/message.cc
  libllmd/src/http/connection_names.cc libllmd/src/http/head_view.cc libllmd/src/http/body_decoder.cc)
set(LLMD_FUZZ_scraped_page_SOURCES services/common/page_reader.cc)
set(LLMD_FUZZ_sse_SOURCES libllmd/src/http/sse.cc)
set(LLMD_FUZZ_gguf_SOURCES libllmd_engine/src/weights/gguf.cc libllmd_engine/src/weights/tensor_view.cc)
set(LLMD_FUZZ_sched_body_SOURCES libllmd_sched/src/pass/request_context.cc libllmd_sched/src/config/params.cc
  libllmd_sched/src/director/body_edits.cc libllmd_sched/src/director/response_scan.cc
  libllmd_sched/src/director/loose_object.cc libllmd_sched/src/pass/charges.cc libllmd_sched/src/data/ledger.cc
  libllmd_sched/src/data/endpoint_life.cc)
foreach(source parser/anthropic_parser parser/body_reader parser/grpc_frame parser/json_parser parser/openai_parser
    parser/passthrough_parser parser/sglanghttp_parser parser/vertexai_parser parser/vllmgrpc_parser parser/vllmhttp_parser
    producer/image_size producer/media_estimate producer/token_estimate)
  list(APPEND LLMD_FUZZ_sched_body_SOURCES libllmd_sched/src/plugins/${source}.cc)
endforeach()
set(LLMD_FUZZ_INCLUDES ${PROJECT_SOURCE_DIR}/tests ${PROJECT_SOURCE_DIR}/libllmd/src ${PROJECT_SOURCE_DIR}/libllmd_kv/src
  ${PROJECT_SOURCE_DIR}/libllmd_sched/include ${PROJECT_SOURCE_DIR}/libllmd_sched/src
  ${PROJECT_SOURCE_DIR}/libllmd_engine/include ${PROJECT_SOURCE_DIR}/libllmd_engine/src ${PROJECT_SOURCE_DIR}/services)
