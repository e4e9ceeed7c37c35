"""The dashboard of the GPUs, from the default metrics of NVIDIA's dcgm-exporter."""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from cluster.grafana.panels import Query, graph, page
from cluster.grafana.queries import DOCUMENTS, SCORED_TOKENS, rate, ratio

GPU = "{{instance}} GPU {{gpu}}"


def gpus() -> Dashboard:
    panels = [
        graph(
            "Utilization",
            "percent",
            "Share of the time in which a kernel ran.",
            Query("DCGM_FI_DEV_GPU_UTIL", GPU),
        ),
        graph(
            "Memory",
            "percentunit",
            "Used share of the GPU's memory.",
            Query("DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)", GPU),
        ),
        graph(
            "Clock",
            "hertz",
            "Clock of the multiprocessors. It falls if the GPU is hot or reaches its power limit.",
            Query("1e6 * DCGM_FI_DEV_SM_CLOCK", GPU),
        ),
        graph(
            "Temperature",
            "celsius",
            "A GPU lowers its clock at its temperature limit, which `nvidia-smi -q` shows.",
            Query("DCGM_FI_DEV_GPU_TEMP", GPU),
        ),
        graph("Power", "watt", "Power draw.", Query("DCGM_FI_DEV_POWER_USAGE", GPU)),
        graph(
            "Energy for 1,000 documents",
            "joule",
            "Energy of all GPUs for 1,000 documents in answers that were charged.",
            # Millijoules for one document are joules for 1,000.
            ratio(rate("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"), rate(DOCUMENTS), "joules"),
        ),
        graph(
            "Last XID error",
            "none",
            "The number of the driver's last error; 0 if there was none.",
            Query("DCGM_FI_DEV_XID_ERRORS", GPU),
        ),
        graph(
            "PCIe retries",
            "short",
            "Retries per second. They point to a bad slot or riser.",
            Query("rate(DCGM_FI_DEV_PCIE_REPLAY_COUNTER[$__rate_interval])", GPU),
        ),
        graph(
            "Scored tokens by model",
            "short",
            "Tokens per second, to compare with the utilization.",
            Query(
                f"sum by (application) (rate({SCORED_TOKENS}[$__rate_interval]))",
                "{{application}}",
            ),
        ),
    ]
    return page("gpus", "GPUs", "From NVIDIA's dcgm-exporter.", {"GPUs": panels})
