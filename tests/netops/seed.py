"""The configuration of the seed document, as it stands there."""

SEED = """\
{
  "metrics": {
    "cpu_utilization": {
      "labels": {"ver": 1, "unit": "percent", "target_type": "gauge"},
      "metric": {"mu": 75, "sigma": 4, "noise": 1, "max": 100, "min": 0},
      "alerts": {
        "threshold": 80,
        "alert": "Operation - Chassis CPU Utilization (StatReplace) exceed Critical threshold (80.0)"
      }
    },
    "throughput": {
      "labels": {"ver": 1, "unit": "mbyte_sec", "target_type": "gauge"},
      "metric": {"mu": 200, "sigma": 50, "noise": 50, "max": 300, "min": 0},
      "alerts": {
        "threshold": 30,
        "alert": "Low Throughput (StatReplace) below threshold (3.0)",
        "type": true
      }
    }
  },
  "error_scenarios": [
    {
      "cpu_utilization": 0,
      "throughput": 30,
      "length": 80
    }
  ],
  "errors": [],
  "error_rate": 0.001,
  "interval": 1,
  "target": "function:netops-demo-ingest",
  "max_samples_per_batch": 720
}
"""  # noqa: E501
