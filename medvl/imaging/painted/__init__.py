"""CT painted on real label maps of kidneys: shape, place and size are a patient's own, every HU is invented."""
