"What a user does with a run: predict, look, exchange, convert."
