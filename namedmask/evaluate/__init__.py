"Scores, baselines, ceilings, protocols."
