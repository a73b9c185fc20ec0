"""Numbers that can be trusted: metrics, calibration, outliers, survival."""
