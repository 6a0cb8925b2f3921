"""The signer: a program of its own, under a user of its own, that alone can read the key and signs only what the journal says was built."""
