"""Online optimisation of a policy against a reward, held near the model it started from."""
