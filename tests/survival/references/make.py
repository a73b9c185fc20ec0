"""Write cohort.csv, which survival.R reads: months with many ties, strata, weights, competing causes. Run once by hand."""

from pathlib import Path

import numpy as np
import pandas as pd

rng = np.random.default_rng(7)
n = 120
frame = pd.DataFrame({"a": rng.normal(size=n).round(3), "b": rng.integers(0, 2, n), "c": rng.normal(50, 8, n).round(1)})
hazard = np.exp(0.7 * frame["a"] - 0.4 * frame["b"] + 0.03 * (frame["c"] - 50))
death, censor = rng.exponential(14, n) / hazard, rng.uniform(2, 30, n)
frame["time"] = np.floor(np.minimum(death, censor))
frame["event"] = (death <= censor).astype(int)
frame["site"] = rng.choice(["east", "north", "west"], n)
frame["weight"] = rng.choice([0.5, 1.0, 2.5], n)
frame["cause"] = frame["event"] * rng.choice([1, 1, 2], n)
frame.to_csv(Path(__file__).with_name("cohort.csv"), index=False)
