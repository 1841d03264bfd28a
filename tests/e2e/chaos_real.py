"""The cluster of `chaos.py --real`: two decode engines behind sidecars and two prefill engines, all llmd-engine with the real
model. Prompts are prefilled elsewhere, so leases are at stake. Trouble comes to the prefill engines; with --ill-decode to one of
the decode engines too."""
import json
import pathlib

from chaos import Cluster, endpoints_yaml
from conftest import MODEL, PD_CONFIG, SCORERS
from ports import free_port

LEASE_S = 2
EXTRA = ("- {type: prefix-based-pd-decider, parameters: {nonCachedTokens: 16}}\n"
         "- type: disagg-profile-handler\n  parameters: {deciders: {prefill: prefix-based-pd-decider}}")


class RealCluster(Cluster):
    config = PD_CONFIG.format(endpoints="ENDPOINTS", extra=EXTRA, profiles="".join(
        f"- name: {role}\n  plugins: [{{pluginRef: {role}-filter}}, {SCORERS}]\n" for role in ("prefill", "decode")))
    pause_s = (2.0, 5.0)
    settle_s = LEASE_S + 4.0
    gone = [*Cluster.gone, ("waiting requests", "vllm:num_requests_waiting"), ("lent blocks", "llmd:kv_blocks_pinned"),
            ("used blocks", "vllm:kv_cache_usage_perc")]
    clients = {"model": "smol", "max_tokens": 6, "echoes": False, "think_s": 0.2}

    @property
    def ill(self):
        return self.engines[1 if self.args.ill_decode else 2:]

    def _engines(self):
        transfer = json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both",
                               "kv_connector_extra_config": {"transport": "auto", "kv_lease_duration": LEASE_S}})
        assert pathlib.Path(MODEL).exists(), f"{MODEL} is absent: run scripts/setup.sh"
        engines = []
        for i in range(4):
            port = free_port()
            argv = ["env", "VLLM_NIXL_SIDE_CHANNEL_PORT=0", f"{self.args.build}/bin/llmd-engine", "serve", MODEL,
                    "--host", "127.0.0.1", "--port", port, "--served-model-name", "smol", "--threads", "1", "--block-size", "16",
                    "--num-gpu-blocks-override", "181", "--kv-transfer-config", transfer]
            engines.append(self.child(f"engine-{i}", argv, port, "/health"))
        endpoints = [(e.port, "prefill") for e in engines[2:]]
        for i, engine in enumerate(engines[:2]):
            port = free_port()
            argv = [f"{self.args.build}/bin/llmd-sidecar", "--port", port, "--model-server-port", engine.port,
                    "--secure-proxy=false", "--prefill-failure-policy", "local-decode",
                    "--prefill-timeout", "4s"]
            self.between.append(self.child(f"sidecar-{i}", argv, port, "/ready"))
            endpoints.append((port, "decode"))
        self.endpoints.write_text(endpoints_yaml(endpoints))
        return engines
