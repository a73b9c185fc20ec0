"""Time to event: Cox and discrete-time models, clinical covariates, and the measures of how well they predict."""
