"""From a tokenized job to scores: which pairs travel together, to whom, and what if one dies."""
