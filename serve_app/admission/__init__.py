"""What a gateway takes in: places for requests, refused work, tokens and bytes."""
